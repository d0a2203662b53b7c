"""Images that are held out of each class, balanced subsets, and images of several classes."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from byol_jax import build
from byol_jax.config import plugin_options
from byol_jax.datasets import tfds as tfds_set
from byol_jax.errors import InputError
from byol_jax.input_pipeline import loading, prepared, splits
from byol_jax.input_pipeline.records import DataError, Shards, one_host
from tests import tiny
from tests.datasets.test_tfds import (
  OPTIONS,
  encode,
  features,
  places,
  record_files,
  write_real_set,
  write_set,
)

CLASSES, TOTAL = 4, 4
FILES = dict(train=(40, 0, 35, 45), test=(6,))
ONE_HOST = Shards(TOTAL, tuple(range(TOTAL)))
PER_CLASS = dict(held_out='per_class', held_out_per_class=3)
VIEW = dict(crop_area=(.2, .6), crop_aspect=(3 / 4, 4 / 3))
LABELS = np.random.default_rng(0).choice(CLASSES, 126, p=[.2, .1, .4, .3])


def read(split, shards=ONE_HOST, **options):
  return splits.read('tfds', split, purpose='a test', shards=shards, options=options)


def image(number):
  """A flat image whose red value is the number of its record."""
  return encode(np.full((8, 8, 3), number, np.uint8), 'PNG')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('choices')
  write_set(folder, [dict(image=image(i), label=label) for i, label in enumerate(LABELS)],
            FILES, features('png', CLASSES))
  return folder


@pytest.fixture
def options(data_dir):
  return dict(OPTIONS, data_dir=str(data_dir), held_out_share=.1)


@pytest.fixture
def load(options):
  return lambda split='train', shards=ONE_HOST, **changes: read(split, shards, **options | changes)


def evaluated(stream, shards=ONE_HOST, workers=1):
  """All images of a host: numbers of their records, sample ids and labels."""
  batches = list(stream.evaluation_batches(
      image_size=4, share=1., order='resize_first', batch_size=16, shards=shards,
      workers=workers, unreadable=pytest.fail))
  join = lambda key: np.concatenate([batch[key] for batch in batches])
  return join('crop1')[:, 0, 0, 0], join('sample_id'), join('labels')


def rows(stream, data_dir):
  """The numbers of a training stream's records, in the order of its ids; none is read."""
  files = record_files(data_dir / 'tiny' / '1.0.0', FILES['train'], 'train')
  where = [f'record {i} of {file}' for file, count in zip(files, FILES['train'])
           for i in range(count)]
  return list(map(where.index, places(stream)))


def trained(stream, shards, workers, first_step=0, last_step=4):
  return list(stream.train_batches(
      'tf_data', policies=(VIEW,), image_size=4, resize='bilinear', seed=5, shards=shards,
      workers=workers, unreadable=pytest.fail, batch_size=8, first_step=first_step,
      last_step=last_step))


def test_as_many_of_each_class_are_held_out(load, data_dir):
  records, ids, labels = evaluated(load('validation', **PER_CLASS))
  assert sorted(ids) == list(range(3 * CLASSES))
  assert rows(load('validation', **PER_CLASS), data_dir) == records[np.argsort(ids)].tolist()
  np.testing.assert_array_equal(labels, LABELS[records])
  assert np.bincount(labels).tolist() == [3] * CLASSES
  train = rows(load(**PER_CLASS), data_dir)
  assert train == sorted(set(range(120)) - set(records))
  assert rows(load('train+validation', **PER_CLASS), data_dir) == list(range(120))


@pytest.mark.parametrize('held_out', [PER_CLASS, {}], ids=['per_class', 'last'])
def test_subsets_are_balanced_nested_and_apart_from_the_held_out_images(
    load, data_dir, held_out):
  open_split = load
  load = lambda *split, **changes: set(rows(open_split(*split, **held_out, **changes), data_dir))
  validation, smaller = load('validation'), set()
  for share in (.05, .1, .2, 1.):
    chosen = load(subset_share=share)
    assert len(chosen) == round(share * (120 - len(validation)))
    assert np.ptp(np.bincount(LABELS[list(chosen)])) <= 1 or share == 1
    assert smaller <= chosen and not validation & chosen
    smaller = chosen
  assert smaller | validation == set(range(120))
  other = load(subset_share=.1, subset_seed=1)
  assert other != load(subset_share=.1)
  assert load('train+validation', subset_share=.1, subset_seed=1) == other | validation


def test_a_subset_names_its_rows_and_the_source_of_each_image(load, data_dir):
  stream = load(subset_share=.1, **PER_CLASS)
  assert stream.subset.name == 'share0.1_of108_seed0'
  records, ids, _ = evaluated(stream)
  np.testing.assert_array_equal(stream.subset.rows, records[np.argsort(ids)])
  assert rows(stream, data_dir) == stream.subset.rows.tolist()
  assert load().subset is load('validation', subset_share=.1).subset is None


@pytest.mark.parametrize('count', [
    pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_images_are_the_same_for_any_number_of_hosts_and_workers(load, count):
  choice = dict(PER_CLASS, subset_share=.2)
  hosts = [one_host(i, count, TOTAL) for i in range(count)]
  streams = [load(shards=host, **choice) for host in hosts]
  whole = load(**choice)
  for stream in streams:
    np.testing.assert_array_equal(stream.shard_sizes, whole.shard_sizes)
  assert sum(whole.shard_sizes) == whole.num_examples == 22
  expected = trained(whole, ONE_HOST, 1)
  parts = [trained(stream, host, count) for stream, host in zip(streams, hosts)]
  for batch, *own in zip(expected, *parts):
    for key in batch:
      np.testing.assert_array_equal(np.concatenate([part[key] for part in own]), batch[key])


def test_each_pass_has_each_image_of_the_subset_once_and_a_resumed_run_goes_on(load):
  stream = load(subset_share=.2, **PER_CLASS)
  batches = trained(stream, ONE_HOST, 2)
  seen = np.concatenate([[batch['epoch'], batch['sample_id']] for batch in batches], axis=1)
  assert sorted(seen[1][seen[0] == 0]) == list(range(stream.num_examples))
  for batch, resumed in zip(batches[2:], trained(stream, ONE_HOST, 0, first_step=2)):
    jax.tree.map(np.testing.assert_array_equal, batch, resumed)


def test_labels_are_read_once_for_all_splits(load, monkeypatch):
  prepared.read_feature.cache_clear()
  for split in ('train', 'validation', 'train+validation'):
    load(split, subset_share=.2, **PER_CLASS)
  assert prepared.read_feature.cache_info().misses == 1
  monkeypatch.setattr(prepared, 'MOST_RECORDS', 100)
  prepared.read_feature.cache_clear()
  with pytest.raises(DataError, match="tiny has 120 records in 'train', but 'label'"):
    load(**PER_CLASS)
  load()  # No labels are needed.


@pytest.mark.parametrize('changes, message', [
    (dict(label_key='', subset_share=.5),
     'subset_share needs one label per image, but tiny has none'),
    (dict(PER_CLASS, label_key=''), 'tiny has none'),
    (dict(PER_CLASS, held_out_per_class=30), 'Class . has .* images in data.options.train_split'),
    (dict(train_split='train[:2]', subset_share=.9), 'classes have no training images'),
    (dict(subset_share=.01), 'subset_share 0.01 of 108 training images leaves 1 for 4 classes'),
    (dict(validation_split='test', test_split='', image_id_key='file', split='validation'),
     "tiny has no feature 'file'"),
    (dict(ignored_label_key='label'), "ignored_label_key is 'label' with label_key 'label'"),
    (dict(validation_name='mnist'), 'mnist has not been prepared')])
def test_choices_that_cannot_be_made_are_said(load, changes, message):
  with pytest.raises(DataError, match=message):
    load(**changes)


def test_a_damaged_file_is_named_when_its_labels_are_read(load, data_dir, tmp_path):
  write_set(tmp_path, [dict(image=image(i), label=i % 4) for i in range(20)], dict(train=(10, 10)),
            features('png', CLASSES))
  file = record_files(tmp_path / 'tiny' / '1.0.0', (10, 10), 'train')[1]
  file.write_bytes(file.read_bytes()[:-40])
  with pytest.raises(DataError, match=f'Reading the labels failed .*{file}'):
    load(data_dir=str(tmp_path), **PER_CLASS)


def test_validation_of_another_set_leaves_out_what_is_trained_on(tmp_path):
  """As with the published lists of ImageNet's images: names i of both, 0, 7, 14, ... listed."""
  names = [f'n{i}.JPEG' for i in range(60)]
  records = lambda rows: [dict(image=image(i), label=i % 10, file_name=names[i]) for i in rows]
  write_real_set(tmp_path, 'imagenet2012', dict(train=(25, 35)), records(range(60)))
  write_real_set(tmp_path, 'imagenet2012_subset/1pct', dict(train=(9,), validation=(4,)),
                 records([*range(0, 60, 7), 1, 2, 3, 4]))
  load = lambda split: read(split, **dict(
      OPTIONS, data_dir=str(tmp_path), name='imagenet2012_subset/1pct', test_split='validation',
      validation_name='imagenet2012', validation_split='train[-20:]', image_id_key='file_name'))
  found, ids, _ = evaluated(load('train+validation'))
  found = found[np.argsort(ids)].tolist()
  assert found[:9] == list(range(0, 60, 7))
  assert found[9:] == [i for i in range(40, 60) if i % 7]
  both = places(load('train+validation'))
  assert [*places(load('train')), *places(load('validation'))] == both
  assert all('validation.tfrecord' in place for place in places(load('test')))


def test_the_rows_of_a_subset_are_written_to_the_workdir(options, tmp_path):
  data = tiny.config().unlock().data
  data.update(dataset='tfds', pipeline='memory', virtual_shards=TOTAL)
  data.options = ml_collections.ConfigDict(dict(options, subset_share=.2) | PER_CLASS)
  loader = loading.load(data, 'train', purpose='a test', workdir=tmp_path)
  file = tmp_path / 'subset_rows_share0.2_of108_seed0.txt'
  rows = [int(line) for line in file.read_text().splitlines()]
  assert loader.data.images[:, 0, 0, 0].tolist() == rows
  assert json.loads((tmp_path / loading.ACCESS_LOG).read_text())['examples'] == len(rows) == 22
  data.options.subset_share = 1.
  loading.load(data, 'train', purpose='a test', workdir=tmp_path)
  assert len(list(tmp_path.glob('subset_rows*'))) == 1


VOC = dict(name='voc/2007', label_key='labels_no_difficult', ignored_label_key='labels',
           held_out_images=4, held_out_share=.5)


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
  """24 images; image i shows class i % 20, classes 3 and 4 in turn, and 19 only as difficult."""
  folder, clear = tmp_path_factory.mktemp('voc'), [[i % 20, 3 + i % 2] for i in range(23)] + [[]]
  examples = [dict(image=image(i), labels_no_difficult=sorted(set(row)),
                   labels=sorted({*row, 19})) for i, row in enumerate(clear)]
  write_real_set(folder, 'voc/2007', dict(train=(10, 14), test=(0,)), examples)
  expected = np.zeros((24, 20), np.int32)
  expected[:, 19] = -1
  for i, row in enumerate(clear):
    expected[i, row] = 1
  return str(folder), expected


@pytest.mark.parametrize('pipeline', ['memory', 'tf_data'])
def test_images_of_several_classes_have_a_row_of_labels(voc, tmp_path, pipeline):
  data = tiny.config().unlock().data
  data.update(dataset='tfds', pipeline=pipeline, virtual_shards=TOTAL)
  data.options = ml_collections.ConfigDict(dict(OPTIONS, data_dir=voc[0]) | VOC)
  loader = loading.load(data, 'train', purpose='a test', workdir=tmp_path)
  assert loader.data.multi_label and loader.data.num_classes == 20
  for batch in loader.evaluation_batches(8):
    assert batch['labels'].dtype == np.int32
    np.testing.assert_array_equal(batch['labels'], voc[1][batch['sample_id']])
  batches = loader.train_batches((VIEW,), seed=0, batch_size=8, first_step=0, last_step=2)
  for batch in batches:
    np.testing.assert_array_equal(batch['labels'], voc[1][batch['sample_id']])
  with pytest.raises(InputError, match='label_key names several classes for one image'):
    build.resolve(tiny.config(), loader.data)


def test_without_the_difficult_ones_labels_are_present_or_absent(voc):
  load = lambda **options: read('train', **dict(
      OPTIONS, data_dir=voc[0]) | VOC | options)
  labels = evaluated(load(ignored_label_key=''))[2]
  np.testing.assert_array_equal(labels, np.maximum(voc[1][:20], 0))
  with pytest.raises(DataError, match='voc/2007 has several'):
    load(held_out='per_class', held_out_per_class=1)
  with pytest.raises(DataError, match='no feature .objects. of kind ClassLabel'):
    load(label_key='objects')


def test_the_keys_of_the_options_are_those_that_can_be_given():
  assert set(plugin_options('datasets', 'tfds')) == set(tfds_set.RANGES)
