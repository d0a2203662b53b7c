import pickle
import zipfile

import numpy as np
import pytest

from byol_jax.datasets import arrays
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.records import DataError, Shards

OPTIONS = dict(labels=None, test_images=None, test_labels=None, validation_share=0., num_classes=0)
PAIR = dict(images='train.npy', labels='train_labels.npy', test_images='test.npy',
            test_labels='test_labels.npy')
ARCHIVES = dict(images='train.npz', test_images='test.npz')


def read(split, shards=Shards(), **options):
  return splits.read('arrays', split, purpose='a test', shards=shards, options=OPTIONS | options)


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
      elif options.get(key) not in (None, 'none'):
        options[key] = str(folder / options[key])
    return read(split, **options)
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
  assert (part.num_examples, part.num_classes) == (whole.num_examples, whole.num_classes)


def test_a_path_may_start_at_the_home_folder(folder, monkeypatch):
  monkeypatch.setenv('HOME', str(folder))
  assert read('train', images='~/train.npz').num_examples == 10


IMAGES, LABELS = draw(10)


@pytest.mark.parametrize('options, message', [
    (dict(images='missing.npy'), r'missing\.npy: no such file'),
    (dict(images='.'), r'is a folder; folders of image files are read with experiments/configs/'),
    (dict(images='train.npy', labels='missing.npy'), r'missing\.npy: no such file'),
    (dict(images=IMAGES.astype(np.float32)),
     r'images\.npy: images must be uint8 \[N, H, W, 3\], not float32 \[10, 4, 5, 3\], from \d'),
    (dict(images=IMAGES[:0]), r'images\.npy has no images'),
    (dict(images='train.npy', labels=LABELS[:9]),
     r'labels\.npy: labels must be integers \[10\], one per image, not int64 \[9\]'),
    (dict(images='train.npy', split='test'), 'no test split: set data.options.test_images'),
    (dict(images='train.npy', split='test', test_images='test.npz'),
     r'train\.npy has no labels, but the test split has; set data.options.num_classes'),
    (dict(images='train.npy', split='test', test_images=IMAGES[..., 0]),
     r'test_images\.npy: images must be uint8'),
    (dict(images='train.npy', validation_share=.95),
     r'the train split is empty with 10 images and data.options.validation_share 0.95'),
    (dict(images='train.npy', split='validation'),
     'the validation split is empty with 10 images and data.options.validation_share 0.0'),
])
def test_unusable_options_say_what_is_wrong(load, options, message):
  with pytest.raises(DataError, match=message):
    load(**options)


@pytest.mark.parametrize('images, advice', [
    (IMAGES / np.float32(255), r'np\.round\(images \* 255\)\.astype\(np\.uint8\) converts'),
    (IMAGES.astype(np.float32), r'np\.round\(images\)\.astype\(np\.uint8\) converts'),
    (IMAGES.astype(np.uint16) * 257, r'np\.round\(images / 257\)\.astype\(np\.uint8\) converts'),
    (IMAGES.astype(np.int64), r'np\.round\(images\)\.astype\(np\.uint8\) converts'),
    (IMAGES.transpose(0, 3, 1, 2), r'images\.transpose\(0, 2, 3, 1\) has that shape'),
    (IMAGES[..., 0], r'np\.repeat\(images\[\.\.\., None\], 3, axis=-1\) has that shape'),
    (IMAGES[..., :1], r'np\.repeat\(images, 3, axis=-1\) has that shape'),
    (IMAGES[..., :1].transpose(0, 3, 1, 2), r'axis=1\)\.transpose\(0, 2, 3, 1\) has that shape'),
    (np.concatenate([IMAGES, IMAGES[..., :1]], -1), r'images\[\.\.\., :3\] has that shape'),
    (IMAGES[0], r'images\[None\] has that shape')])
def test_the_advice_for_other_images_makes_images_of_them(load, images, advice):
  with pytest.raises(DataError, match=advice) as error:
    load(images=np.ascontiguousarray(images))
  code = str(error.value).partition('; ')[2].rpartition(' converts')[0]
  code = code or str(error.value).partition('; ')[2].rpartition(' has that')[0]
  found = eval(code, dict(np=np, images=images))
  assert found.dtype == np.uint8 and found.shape[1:] == (4, 5, 3)
  np.testing.assert_array_equal(found[..., 0], IMAGES[:len(found), ..., 0])


@pytest.mark.parametrize('images, shown', [
    (IMAGES.astype(np.float32) - 100, r'float32 \[10, 4, 5, 3\], from -100 to 1\d\d\.$'),
    (IMAGES > 99, r'not bool \[10, 4, 5, 3\]\.$'), (IMAGES.ravel(), r'not uint8 \[600\]\.$')])
def test_no_advice_where_the_meaning_is_not_plain(load, images, shown):
  with pytest.raises(DataError, match=shown):
    load(images=images)


OBJECTS = np.array([[1], None], object)


def save_damaged(path):
  np.savez(path, images=IMAGES)
  content = bytearray(path.read_bytes())
  content[300] ^= 255
  path.write_bytes(content)


def save_short(path):
  np.save(path, IMAGES)
  path.write_bytes(path.read_bytes()[:400])


class Executed:

  def __reduce__(self):
    return exec, ('raise SystemExit("executed")',)


HOSTILE = np.array([Executed()], object)


@pytest.mark.parametrize('name, save, message', [
    ('text.npy', lambda path: path.write_text('no array'), r'is a text file\. Give an \.npz with'),
    ('a.npz', lambda path: path.write_bytes(b'\xff\xd8\xff\xe0' + bytes(20)), 'is a JPEG image'),
    ('empty.npy', lambda path: path.write_bytes(b''), 'is an empty file'),
    ('folder.npz', lambda path: path.mkdir(), 'is a folder; folders of image files'),
    ('pickle.npz', lambda path: path.write_bytes(pickle.dumps(Executed())), 'is a Python pickle'),
    ('torn.npz', lambda path: path.write_bytes(b'PK\x03\x04 cut'), 'is a zip archive whose end'),
    ('short.npy', save_short, 'is damaged or truncated'),
    ('damaged.npz', save_damaged, 'is damaged or truncated'),
    ('objects.npy', lambda path: np.save(path, OBJECTS), '`images` holds Python objects'),
    ('objects.npz', lambda path: np.savez(path, images=OBJECTS), '`images` holds Python objects'),
    ('labels.npz', lambda path: np.savez(path, images=IMAGES, labels=HOSTILE),
     '`labels` holds Python objects')])
def test_other_files_are_named_and_nothing_is_unpickled(load, tmp_path, name, save, message):
  save(tmp_path / name)
  with pytest.raises(DataError, match=rf'{name}:? {message}') as error:
    load(images=tmp_path / name)
  assert 'allow_pickle' not in str(error.value) and '\n' not in str(error.value)


CLASSES = np.arange(10) % 3


@pytest.mark.parametrize('labels, classes', [
    (CLASSES[:, None], 3), (CLASSES.astype(np.float64), 3), (CLASSES.astype(np.uint64), 3),
    (CLASSES.astype('>i2'), 3), (np.eye(3)[CLASSES], 3), (np.eye(3, dtype=bool)[CLASSES], 3),
    (np.eye(12, dtype=np.int64)[CLASSES], 12)])
def test_labels_of_a_plain_meaning(load, labels, classes):
  data = load(images='train.npy', labels=labels)
  np.testing.assert_array_equal(data.labels, CLASSES)
  assert data.labels.dtype == np.int32 and data.num_classes == classes


def test_true_and_false_are_two_classes(load):
  data = load(images='train.npy', labels=CLASSES > 0)
  assert data.labels.tolist() == [0, 1, 1] * 3 + [0] and data.num_classes == 2


@pytest.mark.parametrize('labels, message', [
    (np.arange(10) * 3_000_000_000,
     r'labels\.npy: the largest label is 27,000,000,000, which would mean 27,000,000,001 classes '
     r'for 10 images\. If .* np\.unique\(.* numbers them\.$'),
    (np.where(CLASSES == 1, 1e300, CLASSES), r'label is 1e\+300, .* 1e\+300 classes for 10 images'),
    (np.full(10, 1.7e9), '1,700,000,001 classes for 10 images'),
    (np.full(10, 2 ** 64 - 1, np.uint64), '18,446,744,073,709,551,616 classes for 10 images'),
    (CLASSES * 5, r'11 classes for 10 images\. .* give --config\.data\.options\.num_classes=11\.$'),
    (np.where(CLASSES == 1, -1, CLASSES),
     r'3 of 10 labels are -1, .*unlabelled with --config\.data\.options\.labels=none\.'),
    (CLASSES - 2, r'3 of 10 labels are -1'),
    (CLASSES - 5, r'labels\.npy: all 10 labels are negative, from -5 to -3\. Labels must number '
                  r'the classes from 0; np\.unique\(.* For unlabelled images, set all to -1\.$'),
    (np.full(10, -2), 'all 10 labels are negative, from -2 to -2'),
    (CLASSES - 2 ** 62, 'negative, from -4,611,686,018,427,387,904 to -4,611,686,018,427,387,902'),
    (np.where(CLASSES == 1, -2, CLASSES),
     r'labels run from -2 to 2, but the classes in the training labels of .* are 0 \.\.\. 2; '),
    (np.array(['a', 'b'])[CLASSES % 2], r"must be integers \[10\], not text such as \['a'\]"),
    (np.array([b'a', b'b'])[CLASSES % 2], r"integers \[10\], not text such as \[b'a'\]"),
    (np.where(CLASSES == 1, np.inf, CLASSES),
     '3 of 10 labels are not whole numbers; the first is inf'),
    (CLASSES + .25, '10 of 10 labels are not whole numbers; the first is 0.25'),
    (np.ones((10, 3), np.int64), r'labels int64 \[10, 3\] are not one-hot'),
    (np.eye(3)[CLASSES] * 2, r'labels float64 \[10, 3\] are not one-hot'),
    (np.zeros((10, 2, 2), np.int64), r'not int64 \[10, 2, 2\]'),
    (CLASSES.astype('M8[s]'), r'not datetime64\[s\] \[10\]')])
def test_labels_that_are_no_classes(load, labels, message):
  with pytest.raises(DataError, match=message) as error:
    load(images='train.npy', labels=labels)
  assert '\n' not in str(error.value)


def test_a_given_number_of_classes_may_exceed_the_images(load):
  data = load(images='train.npy', labels=CLASSES * 50, num_classes=101)
  assert data.num_classes == 101 and data.labels.max() == 100
  with pytest.raises(DataError, match=r'labels\.npy: labels run from 0 to 100, but the classes set '
                                      r'by data\.options\.num_classes are 0 \.\.\. 99; number'):
    load(images='train.npy', labels=CLASSES * 50, num_classes=100)


def test_unused_classes_are_said_once_and_accepted(load, capsys):
  gapped = np.where(CLASSES == 2, 7, CLASSES)
  for split in ('train', 'validation'):
    assert load(split, images='train.npy', labels=gapped, validation_share=.1).num_classes == 8
  said = capsys.readouterr().out.splitlines()
  assert len(said) == 1
  assert said[0].endswith('labels.npy: 5 of the 8 classes have no image: 2, 3, 4, 5, 6')


def test_where_all_labels_are_minus_one_there_are_none(load, capsys):
  data = load(images='train.npy', labels=np.full(10, -1))
  assert data.labels is None and data.num_classes == 0
  assert capsys.readouterr().out.endswith(
      'labels.npy: all labels are -1, so the images are read as unlabelled.\n')


@pytest.mark.parametrize('split', ['train', 'validation', 'train+validation', 'test'])
def test_a_labelled_set_can_be_read_as_unlabelled(load, split):
  data = load(split, **ARCHIVES, labels='none', validation_share=.2)
  assert data.labels is None and data.num_classes == 0


def test_test_labels_outside_of_the_training_classes(load):
  options = dict(images='train.npy', labels=CLASSES, test_images='test.npy')
  with pytest.raises(DataError, match=r'test_labels\.npy: labels run from 0 to 9, but the '
                     r'classes in the training labels of .*train\.npy are 0 \.\.\. 2; number'):
    load('test', **options, test_labels=np.array([0, 1, 9, 2]))
  data = load('test', **options, test_labels=np.array([0, 1, 9, 2]), num_classes=10)
  assert data.labels.tolist() == [0, 1, 9, 2] and data.num_classes == 10
  with pytest.raises(DataError, match='1 of 4 labels are -1'):
    load('test', **options, test_labels=np.array([0, 1, -1, 2]))


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
  split = read('validation', images=str(tmp_path / 'sorted.npz'), validation_share=.1)
  assert np.bincount(split.labels, minlength=4).min() >= 4


def test_a_test_split_that_cannot_exist_is_said_without_reading_the_training_images():
  options = dict(images='anything', labels=None, test_labels=None, num_classes=0)
  with pytest.raises(DataError, match='no test split: set data.options.test_images'):
    arrays.records('test', test_images=None, **options)
  with pytest.raises(DataError, match='none.npz: no such file'):
    arrays.records('test', test_images='none.npz', **options)


def test_the_files_of_the_training_images_have_names_that_stay(load, folder):
  files = load(**PAIR).origin()
  assert files.names == ['images', 'labels'] and not files.packed
  assert files.paths == [f'{folder}/train.npy', f'{folder}/train_labels.npy']
  assert load(**ARCHIVES).origin().names == ['images']


def test_a_member_that_is_no_array_is_named(load, tmp_path):
  with zipfile.ZipFile(tmp_path / 'own.npz', 'w') as archive:
    archive.writestr('images.npy', b'no array')
  with pytest.raises(DataError, match='own.npz: `images` is not a NumPy array; write the file'):
    load(images=str(tmp_path / 'own.npz'), labels=None)
