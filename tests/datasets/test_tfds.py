import functools
import io
import itertools
import json
import math
import pathlib
import re
import shutil

import numpy as np
from PIL import Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from byol_jax.input_pipeline import loading, prepared, splits
from byol_jax.input_pipeline.records import DataError, Shards

OPTIONS = dict(name='tiny', train_split='train', validation_split='', test_split='test',
               held_out='last', held_out_images=10_009, held_out_share=.1, image_key='image',
               label_key='label', shuffle_buffer=8, download=False)
ONE_HOST = Shards(4, (0, 1, 2, 3))
# Images in each file: files of several lengths, one of them empty.
FILES = dict(train=(9, 0, 12, 13, 7), test=(4, 3))
NUM_CLASSES = 3


def encode(array, kind='JPEG'):
  file = io.BytesIO()
  Image.fromarray(array).save(file, kind)
  return file.getvalue()


def features(kind='jpeg', num_classes=NUM_CLASSES):
  return tfds.features.FeaturesDict(dict(
      image=tfds.features.Image(shape=(None, None, 3), encoding_format=kind),
      label=tfds.features.ClassLabel(num_classes=num_classes),
      # A set has more features than are asked for.
      comment=tfds.features.Text()))


def write_metadata(folder, form, lengths, name='tiny', check_data=True):
  """The files beside the records; `lengths`: for each split the records in each file."""
  template = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
  splits = [tfds.core.SplitInfo(
      name=split, shard_lengths=list(counts), num_bytes=0,
      filename_template=tfds.core.ShardedFileTemplate(
          data_dir=folder, template=template, dataset_name=name, split=split,
          filetype_suffix='tfrecord')) for split, counts in lengths.items()]
  tfds.folder_dataset.write_metadata(data_dir=folder, features=form, split_infos=splits,
                                     check_data=check_data)


def record_files(folder, counts, split, name='tiny'):
  """The paths of the files of a split."""
  return [folder / f'{name}-{split}.tfrecord-{number:05d}-of-{len(counts):05d}'
          for number in range(len(counts))]


def write_set(data_dir, examples, lengths, form, name='tiny'):
  """Writes a set as TFDS prepares it; takes the examples, dicts, one after the other."""
  folder = data_dir / name / '1.0.0'
  write_folder(folder, (dict(example, comment='none') for example in examples), lengths, form, name)
  return folder


def write_folder(folder, examples, lengths, form, name):
  folder.mkdir(parents=True)
  examples = iter(examples)
  for split, counts in lengths.items():
    for path, count in zip(record_files(folder, counts, split, name), counts):
      with tf.io.TFRecordWriter(str(path)) as writer:
        for example in itertools.islice(examples, count):
          example = dict(example, image=io.BytesIO(example['image']))
          writer.write(form.serialize_example(form.encode_example(example)))
  write_metadata(folder, form, lengths, name)


def write_real_set(data_dir, name, lengths, examples):
  """A set that TFDS knows, with its own features; `examples` hold those that matter."""
  features = tfds.features
  builder = tfds.builder(name, data_dir=data_dir)
  values = {features.Text: '', features.ClassLabel: 0, features.Sequence: [],
            features.BBoxFeature: features.BBox(0., 0., 1., 1.),
            features.Image: np.zeros((4, 4, 1), np.uint8)}
  others = {key: values[type(kind)] for key, kind in builder.info.features.items()}
  write_folder(pathlib.Path(builder.data_path), ({**others, **example} for example in examples),
               lengths, builder.info.features, builder.name)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Noise of several sizes; labels without a period, so that no slice looks like another."""
  folder = tmp_path_factory.mktemp('tfds')
  random = np.random.default_rng(0)
  examples = [dict(image=encode(random.integers(0, 256, (7 + i % 4, 9, 3), np.uint8)),
                   label=random.integers(NUM_CLASSES)) for i in range(48)]
  write_set(folder, examples, FILES, features())
  return folder


@pytest.fixture(scope='module')
def reference(data_dir):
  """Split in TFDS syntax -> what TFDS reads, in order: (place, bytes, label) of each record."""
  builder = tfds.builder('tiny', data_dir=data_dir)
  config = tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1)

  @functools.cache
  def call(split):
    records = builder.as_dataset(split=split, read_config=config,
                                 decoders=dict(image=tfds.decode.SkipDecoding()))
    found = []
    for record in records.as_numpy_iterator():
      file, number = record['tfds_id'].decode().split('__')
      found.append((f'record {number} of {builder.data_path / file}', record['image'],
                    record['label']))
    return found
  return call


@pytest.fixture
def load(data_dir):
  def call(split='train', shards=ONE_HOST, **options):
    return splits.read('tfds', split, purpose='a test', shards=shards,
                       options=dict(OPTIONS, data_dir=str(data_dir)) | options)
  return call


@pytest.fixture
def copy(data_dir, tmp_path):
  """The folder of a copy of the set, below tmp_path."""
  return shutil.copytree(data_dir / 'tiny', tmp_path / 'tiny') / '1.0.0'


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


@pytest.mark.parametrize('held_out, images, share, count', [
    ('last', 10_009, .1, 5), ('first', 10_009, .1, 5), ('last', 4, .1, 4), ('first', 3, .5, 3),
    ('last', 10_009, .5, 21), ('first', 20, .99, 20), ('last', 0, .5, 0), ('first', 9, 0., 0)])
def test_train_and_validation_part_the_split_between_them(
    load, reference, held_out, images, share, count):
  options = dict(held_out=held_out, held_out_images=images, held_out_share=share)
  whole = [place for place, _, _ in reference('train')]
  assert len(whole) == 41 and count == min(images, math.ceil(share * 41))
  parts = {'last': (whole[:41 - count], whole[41 - count:]),
           'first': (whole[count:], whole[:count])}[held_out]
  for split, expected in zip(('train', 'validation'), parts):
    if expected:
      stream = load(split, **options)
      assert stream.num_examples == len(expected) and places(stream) == expected
      assert stream.num_classes == NUM_CLASSES
    else:
      with pytest.raises(DataError, match=f'tiny: the {split} split is empty'):
        load(split, **options)
  assert places(load('train+validation', **options)) == whole
  assert places(load('test', **options)) == [place for place, _, _ in reference('test')]


@pytest.mark.parametrize('held_out, images, first_places', [
    ('last', 10_009, dict(train=(0, 0), validation=(7, 150_136))),
    ('first', 10_000, dict(train=(0, 10_000), validation=(0, 0)))])
def test_imagenet_is_parted_as_in_the_paper_and_in_the_reference(
    load, tmp_path, held_out, images, first_places):
  # No record is read, so the files need none.
  lengths = (160_146,) * 7 + (160_145,)
  folder = tmp_path / 'tiny' / '1.0.0'
  folder.mkdir(parents=True)
  files = record_files(folder, lengths, 'train')
  for file in files:
    file.write_bytes(b'record')
  write_metadata(folder, features(), dict(train=lengths), check_data=False)
  options = dict(data_dir=str(tmp_path), held_out=held_out, held_out_images=images)
  for split, count in (('train', 1_281_167 - images), ('validation', images)):
    stream = load(split, Shards(64, (0, 1)), **options)
    number, record = first_places[split]
    assert stream.num_examples == count
    assert stream.source(0) == f'record {record} of {files[number]}'
    assert sum(stream.shard_sizes) == count and np.ptp(stream.shard_sizes) == 1


@pytest.mark.parametrize('train, validation', [
    ('train[:50%]', 'train[50%:]'), ('train[10:]', 'train[:10]'), ('train[9:21]', 'test'),
    ('train[30:]+test[:2]+train[:3]', 'train[-36:-30]')])
def test_splits_in_the_syntax_of_tfds(load, reference, train, validation):
  options = dict(train_split=train, validation_split=validation, test_split='')
  expected = dict(train=reference(train), validation=reference(validation))
  expected['train+validation'] = expected['train'] + expected['validation']
  for split, records in expected.items():
    assert places(load(split, **options)) == [place for place, _, _ in records]
  (shard,) = content(load('train+validation', Shards(), **options), [0])
  assert [(r['encoded'], r['labels']) for r in shard] == [
      (image, label) for _, image, label in expected['train+validation']]


@pytest.mark.parametrize('total', [1, 4, 7, 50], ids='{}_shards'.format)
@pytest.mark.parametrize('held_out', ['last', 'first'])
def test_virtual_shards_part_the_records_between_them(load, reference, held_out, total):
  owned = tuple(range(total))
  stream = load('train', Shards(total, owned), held_out=held_out)
  shards = content(stream, owned)
  assert sum(ids(shards), []) == list(range(36))
  np.testing.assert_array_equal(stream.shard_sizes, [len(shard) for shard in shards])
  assert np.ptp(stream.shard_sizes) <= 1
  expected = reference('train')[:36] if held_out == 'last' else reference('train')[5:]
  for record, (_, image, label) in zip(sum(shards, []), expected):
    assert record['encoded'] == image and record['labels'] == label
    assert record['labels'].dtype == record['sample_id'].dtype == np.int32


def test_a_host_has_the_records_of_its_shards_only(load):
  whole, part = (load('train', Shards(4, owned)) for owned in ((0, 1, 2, 3), (1, 2)))
  shards = content(whole, (0, 1, 2, 3))
  assert content(part, (0, 1, 2, 3)) == [[], *shards[1:3], []]
  np.testing.assert_array_equal(part.shard_sizes, whole.shard_sizes)
  assert part.num_examples == whole.num_examples and places(part) == places(whole)


def test_a_host_opens_the_files_of_its_shards_only(load, copy, tmp_path):
  whole = load('train')
  for file in record_files(copy, FILES['train'], 'train')[2:]:
    file.write_bytes(b'no TFRecord file at all')
  stream = load('train', Shards(4, (0,)), data_dir=str(tmp_path))
  for seed in (None, tf.constant([1, 2])):
    assert content(stream, [0], seed) == content(whole, [0], seed)


def test_a_host_reads_copies_of_its_shards_files(load, tmp_path):
  shards = Shards(4, (2,))
  original, cached = (load('train', shards=shards, cache_dir=folder)
                      for folder in (None, str(tmp_path)))
  assert content(cached, (2,)) == content(original, (2,))
  copied = {path.name for path in tmp_path.rglob('tiny-train*')}
  owned, = ids(content(original, (2,)))
  assert copied == {original.source(i).split('/')[-1] for i in owned}


def test_a_host_whose_shards_are_all_empty_reads_nothing(load):
  # 3 images in 8 shards, of which shards 0 and 1 have none.
  stream = load('test', Shards(8, (0, 1)), test_split='test[:3]')
  assert stream.shard_sizes[:2].tolist() == [0, 0] and content(stream, [0, 1]) == [[], []]


def test_a_seed_draws_the_order_of_each_shard(load):
  owned = (0, 1, 2, 3)
  stream = load('train')
  plain = content(stream, owned)
  by_id = {int(record['sample_id']): record for record in sum(plain, [])}
  orders = [content(stream, owned, tf.constant(seed)) for seed in ([0, 0], [0, 1], [1, 0], [0, 0])]
  for order in orders:
    assert [sorted(shard) for shard in ids(order)] == ids(plain)
    assert all(record == by_id[int(record['sample_id'])] for record in sum(order, []))
  assert ids(orders[3]) == ids(orders[0])
  # All four shards, so that no two of them agree by chance.
  for one, other in itertools.combinations([plain, *orders[:3]], 2):
    assert all(a != b for a, b in zip(ids(one), ids(other)))


def test_a_pass_takes_the_files_in_an_order_of_its_seed_and_several_at_once(load):
  stream = load('train+validation', Shards(), shuffle_buffer=1)
  firsts = set()
  for seed in range(4):
    (shard,) = content(stream, [0], tf.constant([seed, 0]))
    files = [stream.source(record['sample_id']).split(' of ')[1] for record in shard[:4]]
    assert len(set(files)) == 4
    firsts.add(tuple(files))
  assert len(firsts) > 1


def test_a_set_is_read_without_its_labels(load, reference):
  stream = load('train', Shards(), label_key='')
  (shard,) = content(stream, [0])
  assert stream.num_classes == 0
  assert all(record.keys() == {'encoded', 'sample_id', 'shard'} for record in shard)
  assert [record['encoded'] for record in shard] == [
      image for _, image, _ in reference('train')[:36]]


@pytest.mark.parametrize('label, key, names', [
    (tfds.features.ClassLabel(names=['cat', 'dog']), 'label', ('cat', 'dog')),
    (tfds.features.Sequence(tfds.features.ClassLabel(names=['cat', 'dog'])), 'label',
     ('cat', 'dog')),
    (tfds.features.ClassLabel(num_classes=3), 'label', ()),
    (tfds.features.ClassLabel(names=['cat', 'dog']), '', ())])
def test_classes_have_the_names_of_tfds(label, key, names):
  form = tfds.features.FeaturesDict(dict(image=tfds.features.Image(), label=label))
  assert prepared.class_names(form, key) == names


def test_version_and_home_folder_are_understood(load, copy, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path.parent))
  stream = load(name='tiny:1.0.0', data_dir=f'~/{tmp_path.name}')
  assert stream.source(0).endswith(f'{tmp_path.name}/tiny/1.0.0/tiny-train.tfrecord-00000-of-00005')


def test_a_set_is_prepared_first_if_that_is_asked_for(load, tmp_path):
  class TinyMade(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')
    url_infos = {}

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=features())

    def _split_generators(self, dl_manager):
      return dict(train=self._generate_examples())

    def _generate_examples(self):
      for i in range(6):
        yield i, dict(image=np.full((4, 4, 3), 40 * i, np.uint8), label=i % 3, comment='')

  options = dict(name='tiny_made', data_dir=str(tmp_path))
  with pytest.raises(DataError, match='tiny_made has not been prepared'):
    load(**options)
  for download in (True, False):
    assert load(**options, download=download).num_examples == 5


@pytest.mark.parametrize('options, message', [
    (dict(name='mnis'), r"^TFDS cannot open 'mnis' in .* \(nearest names: mnist, .*not found"),
    (dict(name='cifar_10/small'), r"'cifar_10/small' in .* \(nearest names: cifar10, .*cifar100"),
    (dict(name='no_set_is_called_so'), "'no_set_is_called_so' in .*: .* not found"),
    (dict(name='tiny:2.0.0'), "TFDS cannot open 'tiny:2.0.0'"),
    (dict(name='mnist/none'), "TFDS cannot open 'mnist/none'"),
      (dict(name='tiny', data_dir='/missing'), "TFDS cannot open 'tiny' in /missing"),
    (dict(train_split='trian'), r"tiny has no split 'trian' \(data.options.train_split\): .*train"),
    (dict(train_split='train[:'), r"tiny has no split 'train\[:'"),
    (dict(train_split='train[:42]'), r"tiny has no split 'train\[:42\]'.*41 examples"),
    (dict(split='validation', validation_split='val'), r"no split 'val' \(.*validation_split\)"),
    (dict(split='train+validation', validation_split='val'), r"no split 'val' \(.*validation_sp"),
    (dict(split='test', test_split='validation'), r"no split 'validation' \(.*test_split\)"),
    (dict(split='test', test_split=''), 'tiny has no test split: set data.options.test_split'),
    (dict(image_key='picture'), r"^tiny has no feature 'picture' of kind Image; it has .*image: "
                                r'Image.* \(data.options.image_key, label_key\)'),
    (dict(label_key='class'), "no feature 'class' of kind ClassLabel; it has .*label: ClassLabel"),
    (dict(label_key='comment'), "no feature 'comment' of kind ClassLabel; it has .*comment: Text"),
    (dict(held_out_share=.99),
     "the train split is empty .*'last', data.options.held_out_images 10009"),
    (dict(train_split='train[:0]'), r"the train split is empty .*'train\[:0\]'"),
    (dict(split='test', test_split='test[3:3]'), r"the test split is empty .*'test\[3:3\]'"),
])
def test_unusable_options_say_what_is_wrong(load, options, message):
  with pytest.raises(DataError, match=message):
    load(**options)


@pytest.mark.parametrize('options', [
    dict(validation_split='test'), dict(train_split='train+test'), dict(train_split='train+train'),
    dict(train_split='train[:60%]', validation_split='train[50%:]')])
def test_records_in_two_splits_are_refused(load, options):
  with pytest.raises(DataError, match='overlaps with (train|validation)_split'):
    load(**dict(test_split='test') | options)


def test_a_set_of_which_only_the_training_files_were_copied_can_be_trained_on(load, copy, tmp_path):
  for path in record_files(copy, FILES['test'], 'test'):
    path.unlink()
  assert load(data_dir=str(tmp_path)).num_examples
  with pytest.raises(DataError, match='are missing'):
    loading.check_test_split(dict(dataset='tfds', options=dict(OPTIONS, data_dir=str(tmp_path))))


def test_a_set_needs_a_name(data_dir):
  with pytest.raises(DataError, match="TFDS cannot open ''"):
    prepared.open_set('', str(data_dir), download=False)


def test_a_set_that_is_not_prepared_tells_the_command(load, tmp_path):
  code = f"tfds.builder('mnist', data_dir='{tmp_path}').download_and_prepare()"
  with pytest.raises(DataError,
                     match=f'^mnist has not been prepared in .*/mnist/.*{re.escape(code)}'):
    load(name='mnist', data_dir=str(tmp_path))


def test_archives_that_must_be_fetched_by_hand_are_named(load, tmp_path):
  with pytest.raises(DataError, match=f'{tmp_path}/downloads/manual .*ILSVRC2012_img_train.tar'):
    load(name='imagenet2012', data_dir=str(tmp_path), download=True)


def test_missing_files_are_named(load, copy, tmp_path):
  for number in (2, 4):
    record_files(copy, FILES['train'], 'train')[number].unlink()
  load('test', data_dir=str(tmp_path))
  load('train', train_split='train[:9]', data_dir=str(tmp_path))
  with pytest.raises(DataError, match='^2 of the 4 files of this split of .* are missing, the '
                     f'first {re.escape(str(copy))}/tiny-train.tfrecord-00002-of-00005; copy'):
    load('train', data_dir=str(tmp_path))


def test_another_file_format_is_refused(load, copy, tmp_path):
  info = json.loads((copy / 'dataset_info.json').read_text())
  (copy / 'dataset_info.json').write_text(json.dumps(dict(info, fileFormat='array_record')))
  with pytest.raises(DataError, match="is in format array_record.*file_format='tfrecord'"):
    load(data_dir=str(tmp_path))


@pytest.mark.parametrize('test_split, message', [
    ('', 'tiny has no test split: set data.options.test_split'),
    ('tset', "tiny has no split 'tset'"), ('test[:0]', 'the test split is empty')])
def test_a_test_split_that_cannot_exist_is_said_without_reading(data_dir, test_split, message):
  section = dict(dataset='tfds', options=dict(OPTIONS, data_dir=str(data_dir)))
  loading.check_test_split(section)
  section['options']['test_split'] = test_split
  with pytest.raises(DataError, match=message):
    loading.check_test_split(section)


def test_the_files_of_training_and_held_out_images_are_named_by_set_and_version(load, data_dir):
  files = load('train').origin()
  names = [f'tiny/1.0.0/tiny-train.tfrecord-{number:05d}-of-00005' for number in (0, 2, 3, 4)]
  assert files.names == names and files.packed
  assert files.paths == [str(data_dir / name) for name in names]
  both = load('train', validation_split='test', test_split='').origin()
  assert both.names == names + [f'tiny/1.0.0/tiny-test.tfrecord-{i:05d}-of-00002' for i in (0, 1)]
