"""Any data set that TensorFlow Datasets has prepared as TFRecord files.

A virtual shard is a contiguous run of the split's records. In training, each pass
over a shard takes the files in an order drawn from the seed, reads several at once
and shuffles in a buffer; only the files that hold the shard are opened.
"""

from collections.abc import Sequence
import difflib
import logging
import math
import os
from typing import Any, NamedTuple

import numpy as np

from byol_jax import local_copies
from byol_jax.datasets import TOGETHER, DataError, Shards, Stream

# TFDS warns of its own use of what it has deprecated.
logging.getLogger('absl').addFilter(
    lambda record: 'tensorflow_datasets' not in record.pathname
    or record.levelno >= logging.ERROR)

# Files of a virtual shard that are read side by side in training, so that the
# buffer holds records of all of them.
FILES_AT_ONCE = 4


class Slice(NamedTuple):
  """`take` records of a file after the first `skip`; the first of them has id `first_id`."""

  file: str
  skip: int
  take: int
  first_id: int


def load(split: str, *, shards: Shards, name: str, data_dir: str | None, train_split: str,
         validation_split: str, test_split: str, held_out: str, held_out_images: int,
         held_out_share: float, image_key: str, label_key: str, shuffle_buffer: int,
         download: bool, cache_dir: str | None = None) -> Stream:
  """Opens a split.

  Args:
    split: 'train', 'validation', 'test' or 'train+validation'.
    shards: the records this host owns.
    name: as TFDS has it, with config and version if wanted: 'imagenette/160px-v2'.
    data_dir: folder of the prepared sets; None takes TFDS's own ($TFDS_DATA_DIR, or
      ~/tensorflow_datasets).
    train_split: in TFDS syntax: 'train', 'train[:50%]', 'train+unlabelled'.
    validation_split: the same; '' holds images of `train_split` out.
    test_split: the same; '' where there is none.
    held_out: 'last' (paper) or 'first' (reference) images of `train_split`.
    held_out_images: how many; 10,009 in the paper, 10,000 in the reference.
    held_out_share: at most this share of the split, rounded up; decides for small sets.
    image_key: the feature that is the image.
    label_key: the feature that is the label; '' for unlabelled data.
    shuffle_buffer: encoded records that a virtual shard keeps to draw from.
    download: prepare the set first, if TFDS can.
    cache_dir: folder on this host into which it copies the files of its shards.

  Raises:
    DataError: no such set, split or feature, or it has not been prepared.
  """
  if shuffle_buffer < 1:
    raise DataError(f'data.options.shuffle_buffer is {shuffle_buffer}; it must be 1 or more.')
  builder = _builder(name, data_dir, download)
  num_classes = _check_features(builder, image_key, label_key)
  _check_apart(builder, train_split, validation_split, test_split)
  both = f'{train_split}+{validation_split}' if validation_split else train_split
  wanted = {'train': train_split, 'validation': validation_split or train_split,
            'test': test_split, TOGETHER: both}
  slices = _slices(builder, wanted[split], split)
  if split in ('train', 'validation') and not validation_split:
    slices = _part(slices, split, held_out, held_out_images, held_out_share)
  if not slices:
    raise DataError(f'{name}: the {split} split is empty (data.options: {wanted[split]!r}, '
                    f'held_out_images {held_out_images}, held_out_share {held_out_share}).')
  _check_files(builder, slices)
  return _stream(builder, slices, shards, num_classes, image_key, label_key, shuffle_buffer,
                 cache_dir)


def check_split(split: str, *, name: str, data_dir: str | None, download: bool, test_split: str,
                **_) -> None:
  """Raises DataError if a split cannot be read, without opening a record."""
  if split != 'test':
    return
  builder = _builder(name, data_dir, download)
  slices = _slices(builder, test_split, split)
  if not slices:
    raise DataError(f'{name}: the test split is empty (data.options.test_split: {test_split!r}).')
  _check_files(builder, slices)


def _check_apart(builder, train: str, validation: str, test: str) -> None:
  """Raises DataError where a record is in two splits, or twice in one."""
  taken = []
  for what, split in (('train', train), ('validation', validation), ('test', test)):
    try:
      slices = _slices(builder, split, what)
    except DataError:  # It matters when the split is read.
      slices = []
    for s in slices:
      for other, t in taken:
        if s.file == t.file and s.skip < t.skip + t.take and t.skip < s.skip + s.take:
          raise DataError(f'data.options.{what}_split {split!r} has records of {other}_split: '
                          f'both hold some of {s.file}.')
      taken.append((what, s))


def _builder(name: str, data_dir: str | None, download: bool) -> Any:
  """The TFDS builder of a prepared set."""
  import tensorflow_datasets as tfds

  # Not pathlib, which would mend the two slashes of gs://.
  folder = None if data_dir is None else os.path.expanduser(data_dir)
  try:
    builder = tfds.builder(name, data_dir=folder)
  # Names such as 'huggingface:...' fail in libraries of their own.
  except Exception as error:
    near = difflib.get_close_matches(name.split('/')[0], tfds.list_builders(), n=3)
    where = f' (nearest names: {", ".join(near)})' if near else ''
    reason = str(error).splitlines()[0]
    raise DataError(f'TFDS cannot open {name!r} in {folder or "its own folder"}{where}: '
                    f'{type(error).__name__}: {reason}') from error
  if not builder.info.splits and download:
    _prepare(builder)
  if not builder.info.splits:
    place = f' --data_dir={folder}' if folder else ''
    raise DataError(
        f'{name} is not prepared in {builder.data_path}. Prepare it with: tfds build {name}{place} '
        '(or --config.data.options.download=True); its page is '
        f'https://www.tensorflow.org/datasets/catalog/{builder.name}')
  return builder


def _prepare(builder) -> None:
  try:
    builder.download_and_prepare()
  # Anything from no network to a wrong checksum, of many libraries' kinds.
  except Exception as error:
    raise DataError(f'TFDS cannot prepare {builder.name} in {builder.data_path} '
                    f'({type(error).__name__}): {str(error).strip().splitlines()[0]}') from error


def _check_features(builder, image_key: str, label_key: str) -> int:
  """The number of classes; raises DataError for features that are not there."""
  import tensorflow_datasets as tfds

  features = builder.info.features
  kinds = {image_key: tfds.features.Image}
  if label_key:
    kinds[label_key] = tfds.features.ClassLabel
  for key, kind in kinds.items():
    if key not in features or not isinstance(features[key], kind):
      have = ', '.join(f'{k}: {type(v).__name__}' for k, v in features.items())
      raise DataError(f'{builder.name} has no feature {key!r} of kind {kind.__name__}; it has '
                      f'{have} (data.options.image_key, label_key).')
  if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
    raise DataError(f'{builder.data_path} is in format {builder.info.file_format.value}, which '
                    'tf.data cannot read; prepare it with --file_format=tfrecord.')
  return features[label_key].num_classes if label_key else 0


def _slices(builder, split: str, what: str) -> list[Slice]:
  """The records of a split in TFDS syntax, numbered from 0."""
  if not split:
    raise DataError(f'{builder.name} has no {what} split: set data.options.{what}_split.')
  try:
    if not builder.info.splits[split].num_examples:
      return []
    instructions = builder.info.splits[split].file_instructions
  except (ValueError, KeyError) as error:
    raise DataError(f'{builder.name} has no split {split!r} (data.options.{what}_split): '
                    f'{str(error).splitlines()[0]}') from error
  slices, first_id = [], 0
  for instruction in instructions:
    # TFDS writes -1 where a slice goes to the end of its file.
    take = instruction.take if instruction.take >= 0 else (
        instruction.examples_in_shard - instruction.skip)
    slices.append(Slice(instruction.filename, instruction.skip, take, first_id))
    first_id += take
  return [s for s in slices if s.take]


def _check_files(builder, slices: Sequence[Slice]) -> None:
  """Raises DataError if a file is not there."""
  import tensorflow as tf

  present = set(tf.io.gfile.listdir(str(builder.data_path)))
  files = sorted({s.file for s in slices})
  missing = [file for file in files if os.path.basename(file) not in present]
  if missing:
    raise DataError(f'{missing[0]} is missing, with {len(missing) - 1} more of the {len(files)} '
                    f'files of this split of {builder.name}; copy them, or prepare the set again.')


def _part(slices: Sequence[Slice], split: str, held_out: str, images: int, share: float
          ) -> list[Slice]:
  """The training or the held-out records."""
  if held_out not in ('first', 'last') or images < 0 or not 0 <= share < 1:
    raise DataError(f"data.options.held_out is {held_out!r}, held_out_images {images} and "
                    f"held_out_share {share}; they can be 'first' or 'last', 0 or more, and 0 to "
                    'below 1.')
  total = sum(s.take for s in slices)
  count = min(images, math.ceil(share * total))
  bounds = dict(first=(0, count, total), last=(0, total - count, total))[held_out]
  second = (split == 'train') == (held_out == 'first')
  cut = _cut(slices, *(bounds[1:] if second else bounds[:2]))
  start = cut[0].first_id if cut else 0
  return [s._replace(first_id=s.first_id - start) for s in cut]


def _cut(slices: Sequence[Slice], start: int, stop: int) -> list[Slice]:
  """The records with ids start ... stop - 1."""
  result = []
  for s in slices:
    low, high = max(start, s.first_id), min(stop, s.first_id + s.take)
    if low < high:
      result.append(Slice(s.file, s.skip + low - s.first_id, high - low, low))
  return result


def _stream(builder, slices, shards: Shards, num_classes: int, image_key: str, label_key: str,
            shuffle_buffer: int, cache_dir: str | None) -> Stream:
  import tensorflow as tf

  total = sum(s.take for s in slices)
  bounds = [total * v // shards.total for v in range(shards.total + 1)]
  per_shard = [_cut(slices, *bounds[v:v + 2]) if v in shards.owned else []
               for v in range(shards.total)]
  table = [s for part in per_shard for s in part]
  if cache_dir:
    local = local_copies.copies(sorted({s.file for s in table}), cache_dir)
    table = [s._replace(file=local[s.file]) for s in table]
  first_row = np.cumsum([0, *map(len, per_shard)])

  def one_slice(row):
    column = lambda name, kind=tf.int64: tf.gather(
        tf.constant([getattr(s, name) for s in table], kind), row)
    file = tf.data.TFRecordDataset(column('file', tf.string), buffer_size=1 << 20)
    part = file.skip(column('skip')).take(column('take'))
    # A file that was cut off between two records would pass for a shorter one.
    part = part.apply(tf.data.experimental.assert_cardinality(column('take')))
    return part.enumerate(column('first_id')).map(
        lambda i, record: dict(sample_id=tf.cast(i, tf.int32), serialized=record))

  def records(shard, seed):
    rows = tf.range(*(tf.gather(tf.constant(first_row), shard + i) for i in (0, 1)))
    if seed is None:
      return tf.data.Dataset.from_tensor_slices(rows).flat_map(one_slice)
    rows = tf.random.experimental.stateless_shuffle(rows, seed)
    mixed = tf.data.Dataset.from_tensor_slices(rows).interleave(
        one_slice, cycle_length=FILES_AT_ONCE)
    buffer_seed = tf.random.stateless_uniform([], seed, None, None, tf.int64)
    return mixed.shuffle(shuffle_buffer, seed=buffer_seed, reshuffle_each_iteration=False)

  def source(sample_id):
    s = next(s for s in slices if s.first_id <= sample_id < s.first_id + s.take)
    return f'record {s.skip + sample_id - s.first_id} of {s.file}'

  read = _parser(builder.info.features, image_key, label_key)
  return Stream(records, read, np.diff(bounds), source, lambda: _damaged_file(table), total,
                num_classes)


def _parser(features, image_key: str, label_key: str):
  """record -> `encoded` and `labels`; the other features of the set are not parsed."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  wanted = {image_key: tfds.decode.SkipDecoding()}
  parsed = tfds.decode.PartialDecoding(
      {key: True for key in (image_key, label_key) if key}, decoders=wanted
  ).extract_features(features)

  def read(record):
    example = parsed.deserialize_example(record['serialized'], decoders=wanted)
    result = dict(encoded=example[image_key])
    if label_key:
      result['labels'] = tf.cast(example[label_key], tf.int32)
    return result

  return read


def _damaged_file(slices: Sequence[Slice]) -> str:
  """Reads the files one after the other; names the first that fails or is too short."""
  import tensorflow as tf

  for s in slices:
    try:
      count = sum(1 for _ in tf.data.TFRecordDataset(s.file))
    except tf.errors.OpError as error:
      return f'{s.file}: {error.message.splitlines()[0].split("}} ")[-1]}'
    if count < s.skip + s.take:
      return f'{s.file} has {count} records where {s.skip + s.take} or more belong'
  return ''
