import collections
import io
import math
import os
import pathlib
import re

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from byol_jax.datasets import image_folder
from byol_jax.input_pipeline import image_files, loading, splits
from byol_jax.input_pipeline.records import DataError, Shards

OPTIONS = dict(validation=None, test=None, labels='folders', validation_share=0.)
# In the order of their names: digits before capitals before small letters.
CLASSES = ['10', '9', 'Bee', 'ant']
# Images at several depths, names that sort unlike their numbers, all endings.
FILES = ['1.png', '10.PNG', '2.jpg', 'deep/er/3.JPEG', 'deep/4.gif', 'deep-5.bmp', 'six 6 #ü.webp']
OTHERS = ['notes.txt', 'deep/list.csv', '.hidden.png', 'Thumbs.db', 'png', '1.png.bak']
# In folders that cannot be used as they are.
UNUSABLE = ['loose/a/1.png', 'loose/b/2.png', 'loose/3.png', 'loose/4.png', 'texts/a/1.txt',
            'texts/b/2.csv', 'hollow/ant/1.png', 'hollow/Bee/1.txt', 'hollow/9/1.txt',
            'more/ant/1.png', 'more/cow/1.png', 'more/dog/2.png']
KINDS = {'.jpg': 'JPEG'}


def read(split, shards=Shards(), **options):
  return splits.read('image_folder', split, purpose='a test', shards=shards,
                     options=OPTIONS | options)


def check_test(**options):
  loading.check_test_split(dict(dataset='image_folder', options=OPTIONS | options))


def write(path, value=0):
  """An image of one colour; other files get text."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix.lower() not in image_files.ENDINGS or path.name.startswith('.'):
    path.write_text('no image')
  else:
    file = io.BytesIO()
    suffix = path.suffix.lower()
    Image.new('RGB', (3, 2), (value, 255 - value, 9)).save(
        file, KINDS.get(suffix, suffix[1:].upper()))
    path.write_bytes(file.getvalue())


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """train/ and held_out/ of four classes, test/ of two of them, flat/ without classes, others."""
  root = tmp_path_factory.mktemp('folders')
  trees = dict(train=(CLASSES, FILES), held_out=(CLASSES, FILES[:2]), test=(CLASSES[2:], FILES[1:]),
               flat=([''], FILES))
  for name, (classes, files) in trees.items():
    for number, label in enumerate(classes):
      for i, file in enumerate(files + OTHERS):
        write(root / name / label / file, 16 * number + i)
  for file in ('train/README.md', 'train/.hidden.jpg', *UNUSABLE):
    write(root / file)
  (root / 'empty').mkdir()
  return root


@pytest.fixture
def load(root):
  """Loads with folders below the root; train/ unless another is given."""
  def call(split='train', shards=Shards(), **options):
    options = OPTIONS | dict(train='train') | options
    for key in ('train', 'validation', 'test'):
      if options[key] is not None:
        options[key] = str(root / options[key])
    return read(split, shards, **options)
  return call


def images(*folders):
  """The images below the folders in the order of their ids."""
  return [path for folder in folders for path in sorted(
      str(path) for path in pathlib.Path(folder).rglob('*')
      if path.suffix.lower() in image_files.ENDINGS and not path.name.startswith('.'))]


def label_of(path, root):
  """The class number by the first folder below train/, held_out/ or test/."""
  return CLASSES.index(pathlib.Path(path).relative_to(root).parts[1])


def places(stream):
  return [stream.source(i) for i in range(stream.num_examples)]


def content(stream, owned, seed=None):
  """The records of each virtual shard, as the pipeline reads them: lists of dicts."""
  def one(shard):
    return stream.records(shard, seed).map(
        lambda record: dict(stream.read(record), sample_id=record['sample_id'], shard=shard))

  records = list(tf.data.Dataset.from_tensor_slices(
      tf.constant(owned, tf.int64)).flat_map(one).as_numpy_iterator())
  return [[record for record in records if record['shard'] == shard] for shard in owned]


def ids(shards):
  return [[int(record['sample_id']) for record in shard] for shard in shards]


@pytest.mark.parametrize('split, folder, count', [
    ('train', 'train', 28), ('validation', 'held_out', 8), ('test', 'test', 12)])
def test_class_folders_are_read_at_any_depth(load, root, split, folder, count):
  stream = load(split, validation='held_out', test='test')
  paths = images(root / folder)
  assert (stream.num_examples, stream.num_classes, len(paths)) == (count, 4, count)
  assert places(stream) == paths
  (records,) = content(stream, [0])
  assert ids([records]) == [list(range(count))]
  for record, path in zip(records, paths):
    assert record['encoded'] == pathlib.Path(path).read_bytes()
    # The test folder has two of the classes, which keep their numbers.
    assert record['labels'] == label_of(path, root) and record['labels'].dtype == np.int32


@pytest.mark.parametrize('folder', ['flat', 'train', 'train/ant/deep'])
def test_unlabelled_images_are_read_at_any_depth(load, root, folder):
  stream = load(train=folder, labels='none')
  paths = images(root / folder)
  assert places(stream) == paths and stream.num_classes == 0
  (records,) = content(stream, [0])
  assert [record['encoded'] for record in records] == [
      pathlib.Path(path).read_bytes() for path in paths]
  assert all(record.keys() == {'encoded', 'sample_id', 'shard'} for record in records)


def test_loose_images_are_no_matter_without_labels(load, tmp_path):
  for file in ('loose.png', 'a/1.png', 'a/b/2.png'):
    write(tmp_path / file)
  assert load(train=tmp_path, labels='none').num_examples == 3


@pytest.mark.parametrize('labels', image_folder.LABELS)
@pytest.mark.parametrize('share, count', [(.01, 1), (.1, 3), (.25, 7), (.5, 14), (.95, 27)])
def test_train_and_validation_part_the_folder_between_them(load, root, share, count, labels):
  parts = [places(load(split, validation_share=share, labels=labels))
           for split in ('train', 'validation')]
  assert [len(part) for part in parts] == [28 - count, count] and count == math.ceil(28 * share)
  assert all(part == sorted(part) for part in parts)
  assert sorted(parts[0] + parts[1]) == images(root / 'train')
  assert places(load('train+validation', validation_share=share)) == images(root / 'train')


def test_held_out_images_keep_their_labels(load, root):
  for split in ('train', 'validation', 'train+validation'):
    stream = load(split, validation_share=.3)
    (records,) = content(stream, [0])
    assert [record['labels'] for record in records] == [
        label_of(path, root) for path in places(stream)]


def test_held_out_images_are_of_all_classes(load, tmp_path):
  for number in range(4):
    for i in range(50):
      (tmp_path / str(number)).mkdir(exist_ok=True)
      (tmp_path / str(number) / f'{i}.png').write_bytes(b'never opened')
  stream = load('validation', train=tmp_path, validation_share=.2)
  found = collections.Counter(pathlib.Path(path).parent.name for path in places(stream))
  assert len(found) == 4 and min(found.values()) >= 4


def test_a_folder_of_held_out_images_has_precedence_over_the_share(load, root):
  options = dict(validation='held_out', validation_share=.5)
  folders = dict(train=['train'], validation=['held_out'])
  for split, names in (folders | {'train+validation': ['train', 'held_out']}).items():
    stream = load(split, **options)
    assert places(stream) == images(*(root / name for name in names))
    (records,) = content(stream, [0])
    assert [record['labels'] for record in records] == [
        label_of(path, root) for path in places(stream)]


def test_the_test_split_ignores_the_validation_share(load, root):
  assert places(load('test', test='test', validation_share=.5)) == images(root / 'test')


@pytest.mark.parametrize('total', [1, 4, 28], ids='{}_shards'.format)
def test_virtual_shards_part_the_images_between_them(load, total):
  owned = tuple(range(total))
  stream = load(shards=Shards(total, owned))
  shards = content(stream, owned)
  assert ids(shards) == [list(range(shard, 28, total)) for shard in owned]
  np.testing.assert_array_equal(stream.shard_sizes, [len(shard) for shard in shards])


def test_a_host_reads_its_shards_as_one_with_all_of_them_does(load):
  whole, part = (load(shards=Shards(5, owned)) for owned in (range(5), (1, 2)))
  assert content(part, (1, 2)) == content(whole, range(5))[1:3]
  np.testing.assert_array_equal(part.shard_sizes, whole.shard_sizes)
  assert (part.num_examples, part.num_classes) == (whole.num_examples, whole.num_classes)
  assert places(part) == places(whole)


def test_shards_may_be_empty(load):
  owned = tuple(range(32))
  shards = content(load(shards=Shards(32, owned)), owned)
  assert ids(shards) == [[shard] if shard < 28 else [] for shard in owned]


def test_a_seed_draws_the_order_of_each_shard(load):
  stream = load(shards=Shards(2, (0, 1)))
  plain = content(stream, (0, 1))
  orders = [content(stream, (0, 1), tf.constant(seed)) for seed in ([0, 0], [0, 1], [0, 0])]
  by_id = {int(record['sample_id']): record for record in plain[0] + plain[1]}
  for order in orders:
    assert [sorted(shard) for shard in ids(order)] == ids(plain)
    assert all(record == by_id[int(record['sample_id'])] for record in order[0] + order[1])
  assert ids(orders[2]) == ids(orders[0])
  for shard in range(2):
    assert len({tuple(ids(order)[shard]) for order in (plain, *orders)}) == 3


def test_paths_may_start_at_the_home_folder_and_end_with_a_slash(root, monkeypatch):
  monkeypatch.setenv('HOME', str(root))
  stream = read('test', train='~/train/', test='~/test/')
  assert places(stream) == images(root / 'test')
  (records,) = content(stream, [0])
  assert [record['labels'] for record in records] == [2] * 6 + [3] * 6


ENDINGS = r'\.jpg, \.jpeg, \.jpe, \.jfif, \.png, \.gif, \.bmp, \.webp, \.tif, \.tiff'


@pytest.mark.parametrize('options, message', [
    (dict(train='missing'), '^/.*missing: no such folder'),
    (dict(train='missing', labels='none'), '^/.*missing: no such folder'),
    (dict(train='loose/3.png'), r'3\.png: no such folder'),
    (dict(split='validation', validation='missing'), '^/.*missing: no such folder'),
    (dict(split='test', test='missing'), '^/.*missing: no such folder'),
    (dict(train='empty'), f'^/.*empty has no images: 0 files, none with the ending {ENDINGS}'),
    (dict(train='texts'), f'^/.*texts has no images: 2 files, none with the ending {ENDINGS}'),
    (dict(train='texts', labels='none'), 'texts has no images: 2 files'),
    (dict(train='loose'), r'^/.*loose has 2 images outside the class folders, the first '
                          r'/.*loose/3\.png; .* give --config\.data\.options\.labels=none for'),
    (dict(train='hollow'), '^/.*hollow has 2 class folders without images, the first /.*hollow/9;'),
    (dict(train='flat'), 'flat has 5 images outside the .*, the first .*flat/1.png; '),
    (dict(split='test', test='more'),
     "^/.*more has 2 classes that the training folder does not have, the first 'cow'; "),
    (dict(split='validation', validation='more'), "2 classes .*, the first 'cow'"),
    (dict(split='train+validation', validation='more'), "2 classes .*, the first 'cow'"),
    (dict(split='test', test='loose'), r'2 images outside the .*, the first .*loose/3\.png'),
    (dict(split='test', test='empty'), 'empty has no images: 0 files'),
    (dict(validation_share=.99),
     r'the train split is empty with 28 images and data\.options\.validation_share 0\.99'),
    (dict(split='validation'), 'the validation split is empty with 28 images'),
    (dict(split='test'), 'no test split: set data.options.test to its folder'),
])
def test_unusable_options_say_what_is_wrong(load, options, message):
  with pytest.raises(DataError, match=message):
    load(**options)


def test_a_link_to_a_folder_above_gives_no_image_twice(load, tmp_path):
  write(tmp_path / 'a' / '1.png')
  (tmp_path / 'a' / 'again').symlink_to(tmp_path)
  assert load(train=tmp_path, labels='none').num_examples == 1


def test_a_folder_without_classes_is_no_labelled_one(load, tmp_path):
  write(tmp_path / '1.png')
  with pytest.raises(DataError, match="outside the class folders.*labels=none"):
    load(train=tmp_path)


@pytest.mark.parametrize('split', ['train', 'test'])
@pytest.mark.parametrize('options', [
    dict(test='train'), dict(test='train/ant'), dict(validation='train/', test='held_out'),
    dict(validation='test', test='test/'), dict(train='train/ant', labels='none', test='train')])
def test_no_image_is_in_two_splits(load, split, options):
  with pytest.raises(DataError, match='lies in data.options.*; the same images would be in two'):
    load(split, **options)


def test_a_link_is_the_folder_that_it_leads_to(load, root, tmp_path):
  (tmp_path / 'other').symlink_to(root / 'train')
  with pytest.raises(DataError, match='the same images would be in two splits'):
    load(test=tmp_path / 'other')


def test_names_that_are_no_text_are_said(load, tmp_path):
  write(tmp_path / '1.png')
  os.rename(tmp_path / '1.png', bytes(tmp_path) + b'/\xe9.png')
  with pytest.raises(DataError, match='not UTF-8'):
    load(train=tmp_path, labels='none')


def test_hidden_folders_are_left_out(load, tmp_path):
  for file in ('a/1.png', '.thumbnails/1.png', 'a/.cache/1.png'):
    write(tmp_path / file)
  assert places(load(train=tmp_path)) == [str(tmp_path / 'a/1.png')]


@pytest.mark.parametrize('test, message', [
    (None, 'no test split: set data.options.test'), ('missing', 'no such folder'),
    ('more', "2 classes .* the first 'cow'"), ('texts', 'has no images')])
def test_a_test_split_that_cannot_exist_is_said_without_reading(root, test, message):
  train = str(root / 'train')
  with pytest.raises(DataError, match=message):
    check_test(train=train, test=test and str(root / test))
  check_test(train=train, test=str(root / 'test'))


def test_a_subset_is_balanced_and_the_held_out_images_stay(load):
  """Four classes of seven images; 7 of the 28 are held out."""
  names = lambda data: [data.source(i) for i in range(data.num_examples)]
  options = dict(validation_share=.25, subset_share=.6)
  part, held = (load(split, **options) for split in ('train', 'validation'))
  whole, both = load('train', validation_share=.25), load('train+validation', **options)
  assert part.num_examples == 13 and set(names(part)) < set(names(whole))
  assert names(held) == names(load('validation', validation_share=.25))
  assert sorted(names(both)) == sorted(names(part) + names(held))
  everything = names(load('train'))
  assert [everything[row] for row in part.subset.rows] == names(part)
  classes = [path.split('/train/')[1].split('/')[0] for path in names(part)]
  assert max(map(classes.count, CLASSES)) - min(map(classes.count, CLASSES)) <= 1
  assert held.subset is None and part.subset.name == 'share0.6_of21_seed0'
  apart = load('train+validation', subset_share=.5, validation='held_out')
  assert apart.num_examples == 14 + 8 and len(apart.subset.rows) == 14


@pytest.mark.parametrize('changes, message', [
    (dict(train='flat', labels='none'), 'subset_share needs one label per image, but .*flat'),
    (dict(validation_share=.9), 'of 4 classes have no training images'),
    (dict(subset_share=.1), 'subset_share 0.1 of 28 training images leaves 3 for 4 classes')])
def test_a_subset_that_cannot_be_balanced_is_said(load, changes, message):
  with pytest.raises(DataError, match=message):
    load('train', **dict(subset_share=.9) | changes)


def test_the_identity_changes_with_the_images_their_order_and_labels(load):
  same = [load(**options).identity for options in ({}, dict(subset_seed=3))]
  assert len({*same, load(validation_share=.2).identity, load('test', test='test').identity,
              load(labels='none').identity}) == 4 and same[0]
  assert load(exif_orientation=False).identity not in same


def test_the_files_of_training_and_held_out_images_are_named_below_their_folders(load, root):
  files = load(validation_share=.5).origin()
  paths = images(root / 'train')
  assert files.paths == paths and not files.packed
  assert files.names == [str(pathlib.Path('train', pathlib.Path(path).relative_to(root / 'train')))
                         for path in paths]
  files = load(validation='held_out').origin()
  assert files.paths == paths + images(root / 'held_out')
  assert files.names[len(paths)].startswith('validation/')
  assert load('test', test='test').origin is None



def test_classes_are_named_and_counted_and_other_files_are_once(load, root):
  options = dict(validation_share=.25, test='test')
  parts = {split: load(split, **options) for split in ('train', 'validation', 'test')}
  assert {part.class_names for part in parts.values()} == {tuple(CLASSES)}
  assert load(labels='none').class_names == () and load(labels='none').summary == ''
  counts = [int(n) for n in re.findall(r' (\d+)(?:,|$)', parts['train'].summary)]
  assert parts['train'].summary.startswith(f'images of {root}/train by class: 10 ')
  assert len(counts) == 4 and sum(counts) == 21
  assert parts['test'].summary == f'images of {root}/test by class: 10 0, 9 0, Bee 6, ant 6'
  # Six others in each of the four folders, and two beside them.
  assert parts['train'].left_out == (
      f'26 files in {root}/train are left out, leaving 28 images: 5 hidden, 4 .bak, 4 .csv, 4 .db, '
      '4 .txt, 4 without an ending, 1 .md')
  assert parts['validation'].left_out == ''
  assert parts['test'].left_out.startswith(f'12 files in {root}/test')
  both = load('train+validation', validation='held_out').left_out
  assert f'{root}/train are left out' in both and f'{root}/held_out are left out' in both


def test_a_root_of_splits_is_refused_and_a_class_called_train_is_not(tmp_path):
  for name in ('splits/train/a/1.png', 'splits/val/a/1.png', 'vehicles/car/1.png',
               'vehicles/train/1.png', 'judged/train/1.png'):
    write(tmp_path / name)
  given = f'--config.data.options.train={tmp_path}/splits/train --config.data.options.validation='
  for labels in image_folder.LABELS:
    with pytest.raises(DataError, match=f'holds the splits of a data set .*{given}'):
      read('train', train=f'{tmp_path}/splits', labels=labels)
  options = dict(train=f'{tmp_path}/vehicles', test=f'{tmp_path}/judged')
  assert read('train', **options).class_names == ('car', 'train')
  # Of the classes of the training images this folder has one.
  assert read('test', **options).num_examples == 1
  with pytest.raises(DataError, match='holds the splits'):
    check_test(**options | dict(test=f'{tmp_path}/splits'))


def test_why_a_file_cannot_be_read(load, tmp_path):
  (tmp_path / '1.png').write_text('<html>')
  stream = load(train=tmp_path, labels='none')
  assert stream.unreadable(0) == (
      f'{tmp_path}/1.png cannot be read as an image: its content is an HTML page, as a server '
      'sends it instead of a file')
