"""Lists as a data set: splits, numbers of identities, and roles in the test split."""

import numpy as np
import pytest

from byol_jax.input_pipeline import loading, splits
from byol_jax.input_pipeline.records import DataError, Shards
from tests import identity_folders

OPTIONS = dict(root=None, query=None, gallery=None, train=None, test_size=3000,
               labels='identities', validation_share=.2)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp('lists')
  identity_folders.write_csv(root)
  identity_folders.write_veri(root / 'veri')
  return root


def options(folder, **changes):
  own = {part: f'{folder}/{part}.csv' for part in ('query', 'gallery', 'train')}
  return OPTIONS | dict(own, format='csv') | changes


def find_roles(**options):
  return loading.roles(dict(dataset='retrieval', options=options))


def records(stream):
  """The labels of a stream in the order of ids."""
  return [int(stream.read(record)['labels']) for shard in range(len(stream.shard_sizes))
          for record in stream.records(shard, None)]


def test_the_test_split_has_the_queries_first(root):
  stream = splits.read('retrieval', 'test', purpose='a test', options=options(root))
  assert (stream.num_examples, stream.num_classes) == (10, 8)
  assert stream.class_names == ('v1', 'v2', 'v3', 'v4', 'v5', 'v7', 'v8', 'v9')
  assert records(stream) == [0, 1, 2, 3, 0, 0, 1, 1, 2, 4]
  assert stream.source(0).endswith('query images/1-0.jpg')


def test_roles(root):
  roles = find_roles(**options(root))
  assert roles.query.tolist() == 4 * [True] + 6 * [False]
  assert roles.camera.tolist() == [0, 1, 0, 0, 0, 1, 0, 2, 0, 1]
  assert roles.label.tolist() == [0, 1, 2, 3, 0, 0, 1, 1, 2, 4]
  assert len(set(roles.image)) == 10 and roles.names[4].endswith('gallery images/1-1.jpg')
  # Of the benchmark's queries the gallery has copies, in the same cameras.
  roles = find_roles(**options(root, format='veri', root=f'{root}/veri'))
  assert roles.query.sum() == 4 and (~roles.query).sum() == 10


def test_an_image_in_both_lists_has_one_number(root, tmp_path):
  # Though the gallery spells its path in another way.
  path = root / 'train images' / '..' / 'query images' / '1-0.jpg'
  (tmp_path / 'both.csv').write_text(f'path,id,camera\n{path},v1,c1\n')
  roles = find_roles(**options(root, gallery=str(tmp_path / 'both.csv')))
  assert roles.image[0] == roles.image[4] and len(set(roles.image)) == 4
  assert roles.camera[4] == roles.camera[0] == 0


def test_cameras_in_one_list_alone_leave_nothing_out(root, tmp_path):
  path = root / 'gallery images' / '1-1.jpg'
  (tmp_path / 'gallery.csv').write_text(f'path,id\n{path},v1\n')
  with pytest.raises(DataError, match='query list has cameras and the gallery list has none'):
    find_roles(**options(root, gallery=str(tmp_path / 'gallery.csv')))


def test_training_images_are_divided_by_a_hash(root):
  parts = {split: splits.read('retrieval', split, purpose='a test', options=options(root))
           for split in ('train', 'validation', 'train+validation')}
  assert [part.num_examples for part in parts.values()] == [8, 2, 10]
  names = [{part.source(i) for i in range(part.num_examples)} for part in parts.values()]
  assert names[0] | names[1] == names[2] and not names[0] & names[1]
  assert records(parts['train+validation']) == [5, 5, 5, 6, 6, 6, 7, 7, 7, 7]


def test_pretraining_reads_the_training_list_alone(root):
  own = options(root, labels='none', query='nowhere.csv', gallery='nowhere.csv')
  stream = splits.read('retrieval', 'train', purpose='a test', options=own)
  assert (stream.num_examples, stream.num_classes) == (8, 0)
  assert 'labels' not in stream.read(dict(sample_id=0))


def test_training_images_without_identities_leave_those_of_the_test(root, tmp_path):
  images = sorted((root / 'train images').iterdir())
  (tmp_path / 'train.csv').write_text('path\n' + '\n'.join(map(str, images)))
  own = options(root, train=str(tmp_path / 'train.csv'))
  train, test = (splits.read('retrieval', split, purpose='a test', options=own)
                 for split in ('train', 'test'))
  assert train.num_classes == test.num_classes == 5
  assert 'labels' not in train.read(dict(sample_id=0)) and records(test)[:4] == [0, 1, 2, 3]


def test_the_gallery_can_stand_for_training_images(root):
  own = options(root, train='gallery')
  stream = splits.read('retrieval', 'train+validation', purpose='a test', options=own)
  assert stream.num_examples == 6
  # Its identities are no labels to be trained with.
  assert 'labels' not in stream.read(dict(sample_id=0)) and stream.num_classes == 5
  test = splits.read('retrieval', 'test', purpose='a test', options=own)
  assert records(test)[4:] == [0, 0, 1, 1, 2, 4]


def test_virtual_shards_hold_each_image_once(root):
  stream = splits.read('retrieval', 'test', purpose='a test', shards=Shards(4, (1, 3)),
                       options=options(root))
  assert stream.shard_sizes.tolist() == [3, 3, 2, 2]
  assert [int(record['sample_id']) for record in stream.records(1, None)] == [1, 5, 9]


def test_what_cannot_be_used_is_said(root, tmp_path):
  both = np.array([root / 'x' / '..' / 'query images' / '1-0.jpg',
                   root / 'train images' / '7-0.jpg'])
  (tmp_path / 'train.csv').write_text('path\n' + '\n'.join(map(str, both)))
  for changes, message in (
      (dict(train=str(tmp_path / 'train.csv')),
       '^The query list and the training list share 1 image, the first .*1-0.jpg; '),
      (dict(validation_share=.95), 'the train split is empty with 10 images')):
    with pytest.raises(DataError, match=message):
      splits.read('retrieval', 'train', purpose='a test', options=options(root, **changes))


def origin(**changes):
  return splits.read('retrieval', 'train', purpose='a test', options=changes).origin()


def test_the_files_of_the_training_list_are_named_below_its_folder(root, tmp_path, monkeypatch):
  files = origin(**options(root))
  assert len(files.names) == 10 and files.names[0] == 'train/train images/7-0.jpg'
  assert files.paths[0] == f'{root}/train images/7-0.jpg'
  monkeypatch.chdir(root)
  assert origin(**options('.'))[::2] == files[::2]
  veri = origin(**options(root, format='veri', root=f'{root}/veri', labels='none'))
  assert veri.names[0] == 'train/image_train/0007_c001_00000000_0.jpg'
  gallery = origin(**options(root, train='gallery'))
  assert gallery.names[0] == 'train/gallery images/1-1.jpg'


def test_another_order_or_identity_in_the_list_shows(root, tmp_path):
  first, *lines = (root / 'train.csv').read_text().splitlines()
  def order(lines, **changes):
    (root / 'other.csv').write_text('\n'.join([first, *lines]) + '\n')
    return origin(**options(root, train=f'{root}/other.csv', **changes)).order
  same = order(lines)
  assert order(['', *lines]) == same != order(lines[::-1])
  renamed = ['v8' + lines[0].removeprefix('v7'), *lines[1:]]
  assert order(renamed) != same
  # Pretraining takes no identities.
  assert order(renamed, labels='none') == order(lines, labels='none')
