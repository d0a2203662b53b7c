import numpy as np
from PIL import Image
import pytest

import byol_jax
from byol_jax import checkpoint
from byol_jax.augment.views import WHOLE, center_views
from byol_jax.embeddings import extract
from byol_jax.errors import InputError
from tests import commands

NAMES = ['10.png', '2.png', 'deep/er/1.png', 'deep/3 #ü.png']


@pytest.fixture(scope='module')
def images(tmp_path_factory):
  """A folder, and {name: image uint8 [32, 32, 3]} of the readable ones in it."""
  folder = tmp_path_factory.mktemp('images')
  generator = np.random.default_rng(0)
  found = {name: generator.integers(0, 256, (32, 32, 3), np.uint8) for name in NAMES}
  for name, image in found.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / name)
  (folder / '.hidden').mkdir()
  for name in ('bad.jpg', 'deep/empty.png', 'notes.txt', '.hidden/1.png', '.dot.png'):
    (folder / name).write_text('' if 'empty' in name else 'no image')
  (folder / 'link.png').symlink_to('/nowhere')
  return folder, found


def test_names_embeddings_and_counts(published_encoder, images, tmp_path):
  folder, found = images
  # Batches of three: the last is not full.
  done = extract.extract(published_encoder, f'{folder}/', tmp_path / 'out.npz', batch_size=3)
  reasons = ["its content is text: 'no image'", 'the file is empty',
             'a link to a file that is not there']
  assert done.unreadable == dict(zip(['bad.jpg', 'deep/empty.png', 'link.png'], reasons))
  assert (done.embedded, done.size) == (4, 8)
  assert done.left_out == (f'3 files in {folder} are left out, leaving 7 images: 2 hidden, 1 .txt')
  with np.load(tmp_path / 'out.npz') as stored:
    assert stored['names'].tolist() == sorted(found)
    assert stored['unreadable'].tolist() == ['bad.jpg', 'deep/empty.png', 'link.png']
    assert stored['reasons'].tolist() == reasons
    assert stored['other_files'] == 3 and stored['step'] == 3
    assert stored['digest'] == checkpoint.read_meta(published_encoder)['digests']['online']
    embeddings = stored['embeddings']
  pixels = np.stack([found[name] for name in sorted(found)])
  views = center_views(dict(images=pixels), form=WHOLE, image_size=32, share=1.,
                       order='resize_first')
  wanted = byol_jax.load_encoder(published_encoder)(views)
  assert embeddings.dtype == np.float32
  np.testing.assert_allclose(embeddings, wanted, 1e-4, 1e-5)


def test_command(published_encoder, images, tmp_path):
  result = commands.run('extract', checkpoint=published_encoder, images=images[0],
                        output=tmp_path / 'out.npz')
  assert result.returncode == 0, result.stderr
  assert '4 images, embeddings of 8 numbers' in result.stdout
  assert '3 images could not be read' in result.stdout
  assert '7 images: 2 hidden, 1 .txt' in result.stdout
  assert ("left out: bad.jpg cannot be read as an image: its content is text: 'no image'"
          in result.stdout)


@pytest.mark.parametrize('command, flags', [
    ('extract', dict(batch_size=65537)), ('convert', dict(image_size=4097))])
def test_sizes_that_no_memory_holds_are_refused(command, flags):
  result = commands.run(command, **flags)
  (name, value), = flags.items()
  assert result.returncode == 1
  assert result.stderr == (f'error: flag --{name}={value}: {value} is not an integer in the range '
                           f'[1, {value - 1}]\n')


def test_a_batch_has_no_room_for_more_images_than_there_are(published_encoder, images, tmp_path):
  for size in (4, 10 ** 9):
    extract.extract(published_encoder, images[0] / 'deep' / 'er', tmp_path / f'{size}.npz',
                    batch_size=size)
  few, many = (np.load(tmp_path / f'{size}.npz')['embeddings'] for size in (4, 10 ** 9))
  np.testing.assert_array_equal(few, many)


def test_errors(published_encoder, images, tmp_path):
  (tmp_path / 'bad').mkdir()
  (tmp_path / 'bad' / 'a.png').write_text('no image')
  (tmp_path / 'bad' / 'b.png').write_text('no image')
  for folder, output, message in (
      (images[0], 'out.csv', 'must end in .npz'),
      ('nowhere', 'out.npz', 'no such folder .--images'),
      (tmp_path / 'bad', 'out.npz', "a.png cannot be read as an image: its content is text: 'no "
                                    "image', nor can the other one."),
      (images[0], 'none/out.npz', 'cannot be written')):
    with pytest.raises(InputError, match=message):
      extract.extract(published_encoder, folder, tmp_path / output)


def test_an_output_that_cannot_be_written_is_said_before_anything_is_encoded(
    published_encoder, images, tmp_path, monkeypatch):
  monkeypatch.setattr(extract, 'embed', None)
  (tmp_path / 'out.npz').mkdir()
  with pytest.raises(InputError, match=f'{tmp_path}/out.npz cannot be written .*Is a directory'):
    extract.extract(published_encoder, images[0], tmp_path / 'out.npz')


def test_photographs_are_turned_and_all_kinds_are_read(published_encoder, tmp_path):
  image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8))
  exif = Image.Exif()
  exif[0x0112] = 6
  image.save(tmp_path / '1.png')
  # A PNG called .jpg, turned back.
  image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / '2.jpg', 'PNG', exif=exif)
  image.save(tmp_path / '3.TIF')
  extract.extract(published_encoder, tmp_path, tmp_path / 'out.npz')
  with np.load(tmp_path / 'out.npz') as stored:
    first, *others = stored['embeddings']
  for other in others:
    np.testing.assert_allclose(other, first, 1e-4, 1e-5)
