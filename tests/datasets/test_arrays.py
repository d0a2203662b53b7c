import numpy as np
import pytest

from byol_jax.datasets import DataError, Shards, arrays

OPTIONS = dict(shards=Shards(), labels=None, test_images=None, test_labels=None,
               validation_share=0., num_classes=0)
PAIR = dict(images='train.npy', labels='train_labels.npy', test_images='test.npy',
            test_labels='test_labels.npy')
ARCHIVES = dict(images='train.npz', test_images='test.npz')


def draw(count, seed=0):
  random = np.random.default_rng(seed)
  return (random.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8),
          random.integers(0, 6, count, dtype=np.int64))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The same ten training and four test images as archives and as pairs of files."""
  folder = tmp_path_factory.mktemp('arrays')
  for name, count, seed in (('train', 10, 0), ('test', 4, 1)):
    images, labels = draw(count, seed)
    np.savez(folder / f'{name}.npz', images=images, labels=labels)
    np.save(folder / f'{name}.npy', images)
    np.save(folder / f'{name}_labels.npy', labels)
  return folder


@pytest.fixture
def load(folder, tmp_path):
  """Loads with files of the folder; arrays given instead are saved first."""
  def call(split='train', **options):
    for key in ('images', 'labels', 'test_images', 'test_labels'):
      if isinstance(options.get(key), np.ndarray):
        np.save(tmp_path / f'{key}.npy', options[key])
        options[key] = str(tmp_path / f'{key}.npy')
      elif options.get(key) is not None:
        options[key] = str(folder / options[key])
    return arrays.load(split, **(OPTIONS | options))
  return call


@pytest.mark.parametrize('files', [PAIR, ARCHIVES], ids=['pair', 'archive'])
@pytest.mark.parametrize('split, count, seed', [('train', 10, 0), ('test', 4, 1)])
def test_files_are_read_as_they_are(load, files, split, count, seed):
  images, labels = draw(count, seed)
  data = load(split, **files)
  np.testing.assert_array_equal(data.images, images)
  np.testing.assert_array_equal(data.labels, labels)
  np.testing.assert_array_equal(data.sample_id, np.arange(count))
  assert data.labels.dtype == np.int32 and data.sample_id.dtype == np.int32
  # The test split has its classes from the training labels.
  assert (data.num_examples, data.num_classes) == (count, draw(10)[1].max() + 1)


@pytest.mark.parametrize('split, image_file', [('train', 'train.npy'), ('test', 'train.npy')])
def test_images_without_labels(load, split, image_file):
  data = load(split, images=image_file, test_images='test.npy', num_classes=5)
  assert data.labels is None and data.num_classes == 0
  assert data.num_examples == (10 if split == 'train' else 4)


def test_a_label_file_has_precedence_over_the_archive(load):
  np.testing.assert_array_equal(load(images='train.npz', labels=np.arange(10)).labels,
                                np.arange(10))


def test_the_given_number_of_classes_wins(load):
  assert load(**PAIR, num_classes=20).num_classes == 20


@pytest.mark.parametrize('share, validation', [
    (0., 0), (.01, 1), (.1, 1), (.25, 3), (.5, 5), (.85, 9)])
def test_train_and_validation_part_the_file_between_them(load, share, validation):
  images, labels = draw(10)
  parts = [load('train', **PAIR, validation_share=share)]
  if validation:
    parts.append(load('validation', **PAIR, validation_share=share))
  assert [part.num_examples for part in parts] == [10 - validation, validation][:len(parts)]
  rows = [[next(i for i in range(10) if np.array_equal(images[i], image)) for image in part.images]
          for part in parts]
  assert sorted(sum(rows, [])) == list(range(10)) and all(r == sorted(r) for r in rows)
  for part, row in zip(parts, rows):
    np.testing.assert_array_equal(part.labels, labels[row])
  assert {part.num_classes for part in parts} == {labels.max() + 1}
  for part in parts:
    np.testing.assert_array_equal(part.sample_id, np.arange(part.num_examples))


def test_train_and_validation_together_are_the_file(load):
  images, labels = draw(10)
  both = load('train+validation', **PAIR, validation_share=.3)
  np.testing.assert_array_equal(both.images, images)
  np.testing.assert_array_equal(both.labels, labels)


def test_the_test_split_ignores_the_validation_share(load):
  assert load('test', **PAIR, validation_share=.5).num_examples == 4


@pytest.mark.parametrize('split, share', [('train', .2), ('validation', .5), ('test', .2)])
def test_a_host_loads_the_rows_it_owns(load, split, share):
  whole = load(split, **PAIR, validation_share=share)
  part = load(split, **PAIR, validation_share=share, shards=Shards(4, (1, 2)))
  rows = [i for i in range(whole.num_examples) if i % 4 in (1, 2)]
  np.testing.assert_array_equal(part.sample_id, rows)
  np.testing.assert_array_equal(part.images, whole.images[rows])
  np.testing.assert_array_equal(part.labels, whole.labels[rows])
  assert part[3:] == whole[3:]


def test_a_path_may_start_at_the_home_folder(folder, monkeypatch):
  monkeypatch.setenv('HOME', str(folder))
  assert arrays.load('train', images='~/train.npz', **OPTIONS).num_examples == 10


IMAGES, LABELS = draw(10)


@pytest.mark.parametrize('options, message', [
    (dict(images='missing.npy'), r'missing\.npy: no such file'),
    (dict(images='.'), 'no such file'),
    (dict(images='train.npy', labels='missing.npy'), r'missing\.npy: no such file'),
    (dict(images=IMAGES.astype(np.float32)),
     r'images\.npy: images must be uint8 \[N, H, W, 3\], not float32 \[10, 4, 5, 3\]'),
    (dict(images=IMAGES[..., 0]), r'images must be uint8 .*, not uint8 \[10, 4, 5\]'),
    (dict(images=IMAGES[..., :1]), r'images must be uint8 .*, not uint8 \[10, 4, 5, 1\]'),
    (dict(images=IMAGES[:0]), r'images\.npy has no images'),
    (dict(images='train.npy', labels=LABELS[:9]),
     r'labels\.npy: labels must be integers \[10\], one per image, not int64 \[9\]'),
    (dict(images='train.npy', labels=LABELS[:, None]), r'not int64 \[10, 1\]'),
    (dict(images='train.npy', labels=LABELS.astype(np.float64)), r'not float64 \[10\]'),
    (dict(images='train.npy', split='test'), 'no test split: set data.options.test_images'),
    (dict(images='train.npy', split='test', test_images='test.npz'),
     r'train\.npy has no labels, the test split has: set data.options.num_classes'),
    (dict(images='train.npy', split='test', test_images=IMAGES[..., 0]),
     r'test_images\.npy: images must be uint8'),
    (dict(images='train.npy', validation_share=.95),
     r'the train split is empty with 10 images and data.options.validation_share 0.95'),
    (dict(images='train.npy', split='validation'), 'the validation split is empty'),
])
def test_unusable_options_say_what_is_wrong(load, options, message):
  with pytest.raises(DataError, match=message):
    load(**options)


OBJECTS = np.array([[1], None], object)


def save_damaged(path):
  np.savez(path, images=IMAGES)
  content = bytearray(path.read_bytes())
  content[300] ^= 255
  path.write_bytes(content)


@pytest.mark.parametrize('name, save', [
    ('text.npy', lambda path: path.write_text('not an array')),
    ('empty.npy', lambda path: path.write_bytes(b'')),
    ('torn.npz', lambda path: path.write_bytes(b'PK\x03\x04 and no more')),
    ('objects.npy', lambda path: np.save(path, OBJECTS)),
    pytest.param('objects.npz', lambda path: np.savez(path, images=OBJECTS)),
    pytest.param('damaged.npz', save_damaged)])
def test_unreadable_files_are_named_and_nothing_is_unpickled(load, tmp_path, name, save):
  save(tmp_path / name)
  with pytest.raises(DataError, match=f'{name} is no readable .npy or .npz file'):
    load(images=tmp_path / name)


def test_an_archive_without_images_lists_what_it_has(load, tmp_path):
  np.savez(tmp_path / 'other.npz', pictures=IMAGES, targets=LABELS)
  with pytest.raises(DataError, match='has no array `images`; it has pictures, targets'):
    load(images=tmp_path / 'other.npz')


def test_labels_in_an_archive_without_labels_are_refused(load, tmp_path):
  np.savez(tmp_path / 'labels.npz', other=LABELS)
  with pytest.raises(DataError, match='labels'):
    load(images='train.npy', labels=tmp_path / 'labels.npz')


def test_a_file_sorted_by_class_gives_a_validation_split_of_all_classes(tmp_path):
  np.savez(tmp_path / 'sorted.npz', images=np.zeros((400, 2, 2, 3), np.uint8),
           labels=np.repeat(np.arange(4), 100))
  split = arrays.load('validation', shards=Shards(), images=str(tmp_path / 'sorted.npz'),
                      labels=None, test_images=None, test_labels=None, validation_share=.1,
                      num_classes=0)
  assert np.bincount(split.labels, minlength=4).min() >= 4


def test_a_test_split_that_cannot_exist_is_said_without_reading():
  with pytest.raises(DataError, match='no test split: set data.options.test_images'):
    arrays.check_split('test', images='anything', test_images=None)
  with pytest.raises(DataError, match='none.npz: no such file'):
    arrays.check_split('test', test_images='none.npz')
