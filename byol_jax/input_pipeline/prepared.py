"""Data sets that TensorFlow Datasets has prepared as TFRecord files: builders, features, splits."""

import difflib
import functools
import logging
import os
from typing import Any, NamedTuple

import numpy as np

from byol_jax.input_pipeline import tfrecords
from byol_jax.input_pipeline.records import DataError
from byol_jax.input_pipeline.tfrecords import Slice

# TFDS warns of its own use of deprecated functions.
logging.getLogger('absl').addFilter(
    lambda record: 'tensorflow_datasets' not in record.pathname
    or record.levelno >= logging.ERROR)

# Most records from which one value is read before the first image; more would take too long.
MOST_RECORDS = 2_000_000


class LabelSpec(NamedTuple):
  """The kind of labels in a data set.

  num_classes: number of classes; 0 for unlabelled data.
  multi_label: whether an image has several classes.
  """

  num_classes: int
  multi_label: bool


def open_set(name: str, data_dir: str | None, download: bool) -> Any:
  """Opens the TFDS builder of a prepared data set.

  Raises:
    DataError: TFDS has no such data set, or it has not been prepared.
  """
  import tensorflow_datasets as tfds

  # Not pathlib, which would merge the two slashes of gs://.
  folder = None if data_dir is None else os.path.expanduser(data_dir)
  try:
    builder = tfds.builder(name, data_dir=folder)
  # Names such as 'huggingface:...' raise errors of other libraries.
  except Exception as error:
    near = difflib.get_close_matches(name.split('/')[0], tfds.list_builders(), n=3)
    where = f' (nearest names: {", ".join(near)})' if near else ''
    reason = str(error).splitlines()[0]
    raise DataError(f'TFDS cannot open {name!r} in {folder or "its default folder"}{where}: '
                    f'{type(error).__name__}: {reason}') from error
  if not builder.info.splits and download:
    _prepare(builder)
  if not builder.info.splits:
    # Not `tfds build`, which needs apache-beam to start (4.9.10).
    place = f', data_dir={folder!r}' if folder else ''
    raise DataError(
        f'{name} has not been prepared in {builder.data_path}; it is described at '
        f'https://www.tensorflow.org/datasets/catalog/{builder.name}. Prepare it with '
        '--config.data.options.download=True, or beforehand with: python -c "import '
        f'tensorflow_datasets as tfds; tfds.builder({name!r}{place}).download_and_prepare()"')
  if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
    raise DataError(f'{builder.data_path} is in format {builder.info.file_format.value}, which '
                    'tf.data cannot read; prepare it with tfds.builder(..., '
                    "file_format='tfrecord').")
  return builder


def _prepare(builder) -> None:
  try:
    builder.download_and_prepare()
  # Anything from a missing network to a wrong checksum, as errors of many libraries.
  except Exception as error:
    # All lines: if archives are missing, the later lines say which, and where to get them.
    raise DataError(f'TFDS cannot prepare {builder.name} in {builder.data_path} '
                    f'({type(error).__name__}): {" ".join(str(error).split())}') from error


def label_spec(builder, image_key: str, label_key: str, ignored_label_key: str) -> LabelSpec:
  """The kind of the labels; raises DataError for features that do not exist."""
  import tensorflow_datasets as tfds

  image, label, many = tfds.features.Image, tfds.features.ClassLabel, tfds.features.Sequence
  features = builder.info.features
  is_many = lambda key: (key in features and isinstance(features[key], many)
                         and isinstance(features[key].feature, label))
  multi_label = is_many(label_key)
  kinds = {image_key: image} | ({label_key: many if multi_label else label} if label_key else {})
  for key, kind in kinds.items():
    if key not in features or not isinstance(features[key], kind):
      have = ', '.join(f'{k}: {type(v).__name__}' for k, v in features.items())
      raise DataError(f'{builder.name} has no feature {key!r} of kind {kind.__name__}; it has '
                      f'{have} (data.options.image_key, label_key).')
  if ignored_label_key and not (multi_label and is_many(ignored_label_key)):
    raise DataError(f'data.options.ignored_label_key is {ignored_label_key!r} with label_key '
                    f'{label_key!r}; in {builder.name} both must be sequences of ClassLabel.')
  if not label_key:
    return LabelSpec(0, False)
  found = features[label_key].feature if multi_label else features[label_key]
  return LabelSpec(found.num_classes, multi_label)


def class_names(features, label_key: str) -> tuple[str, ...]:
  """The names of the classes; () for unlabelled data, and if TFDS has only numbers."""
  if not label_key:
    return ()
  label = getattr(features[label_key], 'feature', features[label_key])
  names = tuple(label.names)
  return () if names == tuple(map(str, range(len(names)))) else names


def slices(builder, split: str, what: str) -> list[Slice]:
  """The records of a split in TFDS syntax, with rows numbered from 0.

  Args:
    builder: builder of the data set.
    split: split in TFDS syntax.
    what: the option that names the split, for messages: 'train', 'validation', 'test'.

  Raises:
    DataError: there is no such split.
  """
  if not split:
    raise DataError(f'{builder.name} has no {what} split: set data.options.{what}_split.')
  try:
    if not builder.info.splits[split].num_examples:
      return []
    instructions = builder.info.splits[split].file_instructions
  except (ValueError, KeyError) as error:
    raise DataError(f'{builder.name} has no split {split!r} (data.options.{what}_split): '
                    f'{str(error).splitlines()[0]}') from error
  # TFDS gives -1 if a slice goes to the end of its file.
  found = [Slice(i.filename, i.skip, i.take if i.take >= 0 else i.examples_in_shard - i.skip, 0)
           for i in instructions]
  return tfrecords.joined([s for s in found if s.take])


def check_apart(*splits: tuple[Any, str, str]) -> None:
  """Raises DataError if a record is in two splits, or twice in one.

  Args:
    *splits: builder, 'train', 'validation' or 'test', and the split in TFDS syntax.
  """
  taken = []
  for builder, what, split in splits:
    try:
      found = slices(builder, split, what)
    except DataError:  # It is raised again when the split is read.
      found = []
    for s in found:
      for other, t in taken:
        if s.file == t.file and s.skip < t.skip + t.take and t.skip < s.skip + s.take:
          raise DataError(f'data.options.{what}_split {split!r} overlaps with {other}_split: '
                          f'both contain some of the same records in {s.file}.')
      taken.append((what, s))


# Cached, because several splits of an evaluation are drawn from the same labels.
@functools.lru_cache(maxsize=8)
def read_feature(name: str, data_dir: str | None, split: str, key: str) -> np.ndarray:
  """Reads one feature of every record of a split, [N], in their order; no image is decoded.

  Raises:
    DataError: there is no such feature, too many records, or a file cannot be read.
  """
  import tensorflow_datasets as tfds

  builder = open_set(name, data_dir, download=False)
  if key not in builder.info.features:
    raise DataError(f'{name} has no feature {key!r}; it has {", ".join(builder.info.features)} '
                    '(data.options.image_id_key).')
  found = slices(builder, split, 'train')
  total = tfrecords.count(found)
  if total > MOST_RECORDS:
    raise DataError(f'{name} has {total} records in {split!r}, but {key!r} can be read in advance '
                    f'from at most {MOST_RECORDS}. Prepare a smaller set, or give '
                    '--config.data.options.held_out=last '
                    '--config.data.options.subset_share=1.')
  tfrecords.check_files(name, found)
  parsed = tfds.decode.PartialDecoding({key: True}).extract_features(builder.info.features)
  values = tfrecords.read_feature(found, lambda record: parsed.deserialize_example(record)[key])
  values.setflags(write=False)  # The cache returns this same array to all callers.
  return values


def parser(features, image_key: str, label_key: str, ignored_label_key: str, spec: LabelSpec):
  """record -> `encoded` and `labels`; other features of the data set are not parsed."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  wanted = {image_key: tfds.decode.SkipDecoding()}
  parsed = tfds.decode.PartialDecoding(
      {key: True for key in (image_key, label_key, ignored_label_key) if key}, decoders=wanted
  ).extract_features(features)

  def present(classes):
    return tf.reduce_any(tf.one_hot(classes, spec.num_classes, True, False, dtype=tf.bool), axis=0)

  def read(record):
    example = parsed.deserialize_example(record['serialized'], decoders=wanted)
    result = dict(encoded=example[image_key])
    if spec.multi_label:
      others = tf.zeros(spec.num_classes, tf.int32)
      if ignored_label_key:
        others -= tf.cast(present(example[ignored_label_key]), tf.int32)
      result['labels'] = tf.where(present(example[label_key]), 1, others)
    elif label_key:
      result['labels'] = tf.cast(example[label_key], tf.int32)
    return result

  return read
