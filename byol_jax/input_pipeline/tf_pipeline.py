"""The tf.data path: records are read, decoded once and cropped on the host.

Each virtual shard is an infinite stream of passes over its records, each pass in an order
drawn from (seed, shard, epoch). A parallel, deterministic interleave takes the same
number of records from every stream for each batch, so the global batches do not
depend on the number of hosts, threads or restarts. A resumed run skips records
before anything is decoded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

from byol_jax.input_pipeline import preprocess
from byol_jax.input_pipeline.batches import HostBatch
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.records import DataError, Shards, check_labels
from byol_jax.input_pipeline.streams import Stream

Record = dict[str, tf.Tensor]
Crop = Callable[[tf.Tensor, Record], Record]

# Errors that object stores and network disks report from time to time and recover from.
TRANSIENT = (tf.errors.AbortedError, tf.errors.DeadlineExceededError,
             tf.errors.UnavailableError, tf.errors.UnknownError)
RETRIES = 3
FIRST_PAUSE = 1.  # seconds before the first new attempt; each later one waits twice as long

# TensorFlow would allocate all memory of a GPU without using it.
tf.config.set_visible_devices([], 'GPU')


def random_crops(seed: int, policies: Sequence[Mapping[str, Any]], size: int, resize: str
                 ) -> Crop:
  """(image, record) -> `crop1`, `crop2`, ...; random crops from seed, epoch and sample."""
  def crop(image, record):
    fold = tf.random.experimental.stateless_fold_in
    sample_seed = fold(fold(tf.constant([seed, 0]), record['epoch']), record['sample_id'])
    return preprocess.crops(image, sample_seed, policies=policies, size=size,
                            resize=resize)
  return crop


def center_crops(size: int, share: float, order: str) -> Crop:
  """(image, record) -> `crop1`, the view for evaluation."""
  return lambda image, _: dict(
      crop1=preprocess.center_view(image, size=size, share=share, order=order))


def train_records(stream: Stream, crop: Crop, *, first_step: int, last_step: int, seed: int,
                  batch_size: int, shards: Shards, workers: int, careful: bool
                  ) -> tf.data.Dataset:
  """Batches of crops for the steps first_step ... last_step - 1.

  Args:
    stream: the training images.
    crop: (image, record) -> crops.
    first_step: step of the first batch; earlier records are skipped without decoding.
    last_step: step after the last batch.
    seed: the run's seed.
    batch_size: images per step over all hosts; a multiple of `shards.total`.
    shards: this host's shards.
    workers: number of images decoded at once; 0 lets tf.data decide.
    careful: whether to mark images that cannot be decoded, instead of raising.

  Returns:
    Batches with sample_id, epoch and readable [b]; labels [b] or [b, num_classes], if there are
    any; and crops uint8 [b, size, size, 3].
  """
  per_shard = batch_size // shards.total
  position = first_step * per_shard
  sizes = tf.constant(stream.shard_sizes, tf.int64)
  fold = tf.random.experimental.stateless_fold_in

  def shard_stream(shard):
    size = tf.gather(sizes, shard)
    first_epoch = position // size
    shard_seed = fold(tf.constant([seed, 1]), tf.cast(shard, tf.int32))

    def one_pass(epoch):
      number = tf.cast(epoch, tf.int32)
      records = stream.records(shard, fold(shard_seed, number))
      done = tf.where(epoch == first_epoch, position % size, tf.zeros([], tf.int64))
      return records.skip(done).map(lambda record: dict(record, epoch=number))

    return tf.data.Dataset.range(first_epoch, tf.int64.max).flat_map(one_pass)

  records = tf.data.Dataset.from_tensor_slices(
      tf.constant(shards.owned, tf.int64)).interleave(
          shard_stream, cycle_length=len(shards.owned), block_length=per_shard,
          num_parallel_calls=len(shards.owned), deterministic=True)
  own = per_shard * len(shards.owned)
  records = records.take(max(0, last_step - first_step) * own)
  return _cropped(records, stream, crop, workers, careful).batch(own).prefetch(2)


def evaluation_records(stream: Stream, crop: Crop, *, batch_size: int, shards: Shards,
                       workers: int, careful: bool) -> tf.data.Dataset:
  """As `train_records`, but each owned image once, shard by shard; the last batch may be short."""
  owned = tf.data.Dataset.from_tensor_slices(tf.constant(shards.owned, tf.int64))
  records = owned.flat_map(lambda shard: stream.records(shard, None))
  return _cropped(records, stream, crop, workers, careful).batch(batch_size).prefetch(2)


def _cropped(records: tf.data.Dataset, stream: Stream, crop: Crop, workers: int, careful: bool
             ) -> tf.data.Dataset:
  """Reads, decodes and crops each record; `readable` says whether the image could be decoded.

  Without `careful`, an image that cannot be decoded is an error. `careful` takes about a fifth of
  the time for an image, so it is only used if there are such images.
  """
  decode = stream.decode or preprocess.decode

  def good(encoded, record):
    return dict(record, **crop(decode(encoded), record), readable=True)

  def blank(_, record):
    return dict(record, **crop(tf.zeros([1, 1, 3], tf.uint8), record), readable=False)

  def read(record):
    # Outside of the part that may fail: an unreadable disk is not an invalid image.
    found = dict(stream.read(record))
    keys = {name: record[name] for name in ('sample_id', 'epoch') if name in record}
    return found.pop('encoded'), dict(keys, **found)

  def attempt(record):
    one = tf.data.Dataset.from_tensors(read(record))
    return one.map(good).ignore_errors().concatenate(one.map(blank)).take(1).get_single_element()

  one_image = attempt if careful else lambda record: good(*read(record))
  return records.map(one_image, num_parallel_calls=workers or tf.data.AUTOTUNE, deterministic=True)


def with_crops(batches: Iterator[HostBatch], split: Split, crop: Crop, workers: int
               ) -> Iterator[HostBatch]:
  """Batches of whole images from memory -> batches of crops."""
  signature = dict(sample_id=tf.TensorSpec([None], tf.int32),
                   epoch=tf.TensorSpec([None], tf.int32),
                   images=tf.TensorSpec([None, *split.images.shape[1:]], tf.uint8))
  if split.labels is not None:
    signature['labels'] = tf.TensorSpec([None, *split.labels.shape[1:]], tf.int32)

  def cropped(record):
    record = dict(record)
    image = record.pop('images')
    return dict(record, **crop(image, record))

  def one_batch(batch):
    return tf.data.Dataset.from_tensor_slices(batch).map(
        cropped, num_parallel_calls=workers or tf.data.AUTOTUNE, deterministic=True).batch(
            tf.shape(batch['sample_id'], tf.int64)[0])

  dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
  return dataset.flat_map(one_batch).prefetch(2).as_numpy_iterator()


def host_batches(records: Callable[[int, bool], tf.data.Dataset], stream: Stream
                 ) -> Iterator[HostBatch]:
  """Yields the batches as NumPy arrays; storage errors become a DataError.

  After errors that storage recovers from, reading is tried again, at most RETRIES times for a
  batch. From the first image that cannot be decoded, all images are decoded with `careful`.

  Args:
    records: (number of batches to skip, careful) -> the batches after them.
    stream: the stream of these batches.

  Raises:
    DataError: reading has failed; the message names the file if it can be found.
  """
  done, failures, careful = 0, 0, False
  while True:
    try:
      for batch in records(done, careful).as_numpy_iterator():
        yield batch
        done, failures = done + 1, 0
      return
    except tf.errors.OpError as error:
      if isinstance(error, tf.errors.InvalidArgumentError) and not careful:
        careful = True
        continue
      reason = error.message.splitlines()[0].split('}} ')[-1].split(' [Op:')[0]
      if isinstance(error, TRANSIENT) and failures < RETRIES:
        failures += 1
        print(f'Reading failed ({type(error).__name__}: {reason}); retry {failures} of {RETRIES}.',
              file=sys.stderr, flush=True)
        time.sleep(FIRST_PAUSE * 2 ** (failures - 1))
        continue
      print('Reading failed; looking for the damaged file.', flush=True)
      raise DataError(f'Reading the data set failed ({type(error).__name__}): {reason}. '
                      f'{stream.diagnose()}'.strip()) from error


def in_memory(stream: Stream, *, shards: Shards, workers: int) -> Split:
  """Decodes every owned image of a stream.

  Raises:
    DataError: an image cannot be read, or the images have different sizes.
  """
  records = lambda done, careful: evaluation_records(
      stream, lambda image, _: dict(image=image), batch_size=1, shards=shards, workers=workers,
      careful=careful).skip(done)
  rows = {}
  for batch in host_batches(records, stream):
    sample_id, image = int(batch['sample_id'][0]), batch['image'][0]
    if not batch['readable'][0]:
      raise DataError(f'{stream.unreadable(sample_id)}. data.pipeline memory needs every image: '
                      'replace or remove it, or give --config.data.pipeline=tf_data '
                      '--config.data.unreadable=skip.')
    rows[sample_id] = image, batch.get('labels', [0])[0]
    first = next(iter(rows.values()))[0]
    if image.shape != first.shape:
      raise DataError(f'{stream.source(sample_id)} is {image.shape[1]} x {image.shape[0]} pixels, '
                      f'other images are {first.shape[1]} x {first.shape[0]}; images of several '
                      'sizes need --config.data.pipeline=tf_data.')
  ids = np.array(sorted(rows), np.int32)
  labels = np.array([rows[i][1] for i in ids], np.int32) if stream.labelled else None
  if stream.labelled:
    check_labels('The data set', labels, stream.num_classes)
  return Split(ids, np.stack([rows[i][0] for i in ids]), labels, stream.num_examples,
               stream.num_classes, class_names=stream.class_names, summary=stream.summary,
               left_out=stream.left_out)

