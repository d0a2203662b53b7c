"""Search in an index that `extract` has made, by the commands and their functions."""

import numpy as np
from PIL import Image
import pytest

from byol_jax.embeddings import extract, search
from byol_jax.errors import InputError
from tests import commands, identity_folders


@pytest.fixture(scope='module')
def index(published_encoder, tmp_path_factory):
  """A folder of images, and its index."""
  folder = tmp_path_factory.mktemp('index')
  identity_folders.write_folders(folder / 'images')
  extract.extract(published_encoder, folder / 'images', folder / 'index.npz')
  return folder


def test_the_image_itself_is_nearest_and_the_order_is_that_of_the_cosine(published_encoder, index):
  query = 'gallery/car 2/1.jpg'
  hits = search.search(published_encoder, index / 'index.npz', index / 'images' / query, count=5)
  with np.load(index / 'index.npz') as stored:
    names, embeddings = stored['names'].tolist(), stored['embeddings'].astype(np.float64)
  embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
  cosine = embeddings @ embeddings[names.index(query)]
  order = np.argsort(-cosine)[:5]
  assert hits[0].name == query and hits[0].similarity == pytest.approx(1, abs=1e-5)
  assert [hit.name for hit in hits] == [names[row] for row in order]
  np.testing.assert_allclose([hit.similarity for hit in hits], cosine[order], atol=1e-5)


def test_more_than_there_are(published_encoder, index):
  query = index / 'images' / 'query' / 'car 1' / '0.jpg'
  assert len(search.search(published_encoder, index / 'index.npz', query, count=100)) == 20


def test_command(published_encoder, index):
  done = commands.run('search', checkpoint=published_encoder, index=index / 'index.npz', count=3,
                      query=index / 'images' / 'train' / 'car 7' / '0.jpg')
  assert done.returncode == 0, done.stderr
  first, *others = done.stdout.splitlines()
  assert first == '   1  1.0000  train/car 7/0.jpg' and len(others) == 2


def test_errors(published_encoder, index, tmp_path):
  image = index / 'images' / 'query' / 'car 1' / '0.jpg'
  (tmp_path / 'bad.jpg').write_text('no image')
  (tmp_path / 'bad.npz').write_text('no index')
  np.savez(tmp_path / 'other.npz', names=np.array(['a']))
  with np.load(index / 'index.npz') as stored:
    np.savez(tmp_path / 'another.npz', **dict(stored, digest=np.array('0' * 64)))
    np.savez(tmp_path / 'short.npz', **dict(stored, names=stored['names'][:3]))
    np.savez(tmp_path / 'flat.npz', **dict(stored, embeddings=stored['embeddings'][0]))
    np.savez_compressed(tmp_path / 'damaged.npz', **stored)
  damaged = bytearray((tmp_path / 'damaged.npz').read_bytes())
  # Within the embeddings, which are most of the file.
  middle = damaged.index(b'embeddings.npy') + 200
  damaged[middle:middle + 100] = b'\xff' * 100
  (tmp_path / 'damaged.npz').write_bytes(damaged)
  for own, query, message in (
      (index / 'index.npz', 'nowhere.jpg', 'nowhere.jpg: no such file .--query'),
      (index / 'index.npz', tmp_path / 'bad.jpg',
       '^--query: .*bad.jpg cannot be read as an image: its content is text'),
      (index / 'index.npz', tmp_path, 'is a folder; --query takes one image file'),
      (tmp_path / 'none.npz', image, 'no such file .--index'),
      (tmp_path, image, 'is a folder. --index takes the .npz that'),
      (tmp_path / 'bad.npz', image, 'bad.npz is a text file. --index takes the .npz that'),
      (tmp_path / 'other.npz', image, 'other.npz is not an index'),
      (tmp_path / 'short.npz', image, 'short.npz is not an index .* or it is damaged'),
      (tmp_path / 'flat.npz', image, 'flat.npz is not an index'),
      (tmp_path / 'damaged.npz', image, 'damaged.npz is not an index'),
      (tmp_path / 'another.npz', image, 'was not made by the encoder')):
    with pytest.raises(InputError, match=message):
      search.search(published_encoder, own, query, count=3)


def test_an_index_of_gray_images(published_encoder, tmp_path):
  """Gray files become RGB on both sides."""
  (tmp_path / 'images').mkdir()
  for i in range(3):
    pixels = np.random.default_rng(i).integers(0, 256, (20, 20), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'images' / f'{i}.png')
  extract.extract(published_encoder, tmp_path / 'images', tmp_path / 'index.npz')
  hits = search.search(published_encoder, tmp_path / 'index.npz', tmp_path / 'images' / '1.png',
                       count=1)
  assert hits[0].name == '1.png'
