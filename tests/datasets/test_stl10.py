import numpy as np
import pytest

from byol_jax.input_pipeline import loading, splits
from byol_jax.input_pipeline.records import DataError, Shards

COUNTS = dict(train=40, test=20, unlabeled=30)


@pytest.fixture(scope='module')
def arrays():
  """Images [N, 96, 96, 3] and labels 0 ... 9 of each file."""
  rng = np.random.default_rng(0)
  return {name: (rng.integers(0, 256, (count, 96, 96, 3), np.uint8), np.arange(count) % 10)
          for name, count in COUNTS.items()}


@pytest.fixture
def folder(tmp_path, arrays):
  for name, (images, labels) in arrays.items():
    # The format: channels first, each channel column by column.
    with (tmp_path / f'{name}_X.bin').open('wb') as file:
      for image in images:
        for channel in range(3):
          file.write(image[:, :, channel].tobytes(order='F'))
    if name != 'unlabeled':
      (tmp_path / f'{name}_y.bin').write_bytes(bytes(int(label) + 1 for label in labels))
  (tmp_path / 'fold_indices.txt').write_text('3 1 4 15 9\n26 5 35 8 7\n')
  return tmp_path


@pytest.fixture
def options(folder):
  return dict(folder=str(folder), unlabelled=False, fold=None, validation_share=.25)


@pytest.fixture
def load(options):
  def call(split, shards=Shards(), **changes):
    return splits.read('stl10', split, purpose='a test', shards=shards,
                       options=options | changes)
  return call


def test_images_and_labels_are_those_of_the_files(load, arrays):
  data = load('test')
  np.testing.assert_array_equal(data.images, arrays['test'][0])
  np.testing.assert_array_equal(data.labels, arrays['test'][1])
  assert (data.num_examples, data.num_classes) == (20, 10)
  assert data.class_names[0] == 'airplane' and data.class_names[9] == 'truck'


def test_unlabelled_images_are_for_pretraining(load, arrays):
  data = load('train+validation', unlabelled=True)
  np.testing.assert_array_equal(data.images, arrays['unlabeled'][0])
  assert data.labels is None and data.num_classes == 0 and data.class_names == ()
  assert load('train', unlabelled=True).num_examples == 22


@pytest.mark.parametrize('fold, rows', [(None, range(40)), (0, [1, 3, 4, 9, 15]),
                                        (1, [5, 7, 8, 26, 35])])
def test_a_fold_has_its_rows_which_train_and_validation_share(load, arrays, fold, rows):
  both = load('train+validation', fold=fold)
  np.testing.assert_array_equal(both.images, arrays['train'][0][list(rows)])
  np.testing.assert_array_equal(both.labels, arrays['train'][1][list(rows)])
  parts = [load(split, fold=fold) for split in ('train', 'validation')]
  assert parts[1].num_examples == -(-len(rows) // 4)
  images = np.concatenate([part.images for part in parts])
  assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in both.images)


def test_a_host_has_the_rows_it_owns(load):
  whole, part = load('train'), load('train', Shards(4, (1, 2)))
  rows = [i for i in range(whole.num_examples) if i % 4 in (1, 2)]
  np.testing.assert_array_equal(part.sample_id, rows)
  np.testing.assert_array_equal(part.images, whole.images[rows])


@pytest.mark.parametrize('changes, message', [
    (dict(folder='/no/such'), r'/no/such/train_X.bin is missing .*stl10_binary.tar.gz'),
    (dict(fold=2), r'fold is 2; .*fold_indices.txt has the folds 0 \.\.\. 1'),
])
def test_wrong_options_are_said(load, changes, message):
  with pytest.raises(DataError, match=message):
    load('train', **changes)


@pytest.mark.parametrize('name, content, message', [
    ('train_X.bin', b'abc', 'has 3 bytes, not a multiple of 27648'),
    ('train_X.bin', b'', 'has 0 bytes'),
    ('train_y.bin', b'\1\2', '40 images in train_X.bin, 2 labels in train_y.bin'),
    ('train_y.bin', b'\1' * 39 + b'\13', r'labels run from 0 to 10, outside 0 \.\.\. 9'),
    ('fold_indices.txt', b'1 2 x\n', 'line 1 is not a list of numbers'),
    ('fold_indices.txt', b'1 40\n', r'line 1 must list rows in 0 \.\.\. 39'),
])
def test_damaged_files_are_named(load, folder, name, content, message):
  (folder / name).write_bytes(content)
  with pytest.raises(DataError, match=message):
    load('train+validation', fold=0 if 'fold' in name else None)


def test_the_test_files_can_be_looked_at_before_they_are_read(folder, options):
  section = dict(dataset='stl10', options=options)
  loading.check_test_split(section)
  (folder / 'test_y.bin').unlink()
  with pytest.raises(DataError, match='test_y.bin is missing'):
    loading.check_test_split(section)


def test_missing_folds_are_said(load, folder):
  (folder / 'fold_indices.txt').unlink()
  with pytest.raises(DataError, match='fold_indices.txt is missing'):
    load('train', fold=0)


def test_a_subset_is_balanced_and_apart_from_the_held_out_images(load, arrays):
  whole, part, small, held = (load(*args, **changes) for args, changes in (
      (['train'], {}), (['train'], dict(subset_share=.7)), (['train'], dict(subset_share=.4)),
      (['validation'], dict(subset_share=.4))))
  assert [one.num_examples for one in (whole, part, small, held)] == [30, 21, 12, 10]
  assert whole.subset is held.subset is None and part.subset.name == 'share0.7_of30_seed0'
  np.testing.assert_array_equal(part.images, arrays['train'][0][part.subset.rows])
  np.testing.assert_array_equal(part.labels, part.subset.rows % 10)
  assert np.ptp(np.bincount(small.labels, minlength=10)) <= 1
  assert set(small.subset.rows) < set(part.subset.rows)
  np.testing.assert_array_equal(held.images, load('validation').images)
  both = load('train+validation', subset_share=.4)
  assert both.num_examples == 22 and set(small.subset.rows) == set(both.subset.rows)
  assert set(load('train', subset_share=.4, subset_seed=1).subset.rows) != set(small.subset.rows)


@pytest.mark.parametrize('changes, message', [
    (dict(fold=0), '7 of 10 classes have no training images, the first is class 0'),
    (dict(unlabelled=True), 'subset_share needs one label .* unlabeled_X.bin has none'),
    (dict(subset_share=.1), 'subset_share 0.1 of 30 training images leaves 3 for 10 classes')])
def test_a_subset_that_cannot_be_balanced_is_said(load, changes, message):
  with pytest.raises(DataError, match=message):
    load('train', **dict(subset_share=.9) | changes)


@pytest.mark.parametrize('changes, names', [
    (dict(unlabelled=True), ['unlabeled_X.bin']), ({}, ['train_X.bin', 'train_y.bin']),
    (dict(fold=0), ['train_X.bin', 'train_y.bin', 'fold_indices.txt'])])
def test_the_files_of_the_training_images_are_those_that_are_read(load, folder, changes, names):
  files = load('train', **changes).origin()
  assert files.names == names
  assert files.paths == [str(folder / name) for name in names]
