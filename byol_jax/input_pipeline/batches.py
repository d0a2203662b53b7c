"""Host batches of a split, for training and for evaluation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import chex
import numpy as np

from byol_jax.errors import InputError
from byol_jax.input_pipeline.order import samples_of_step
from byol_jax.input_pipeline.records import (
  DataError,
  Shards,
  Split,
  Stream,
  check_labels,
  out_of_range,
)

HostBatch = dict[str, np.ndarray]
PIPELINES = ('memory', 'device', 'tf_data')
# Called with the ids of images that could not be read; may raise.
Unreadable = Callable[[Sequence[int]], None]


def row_batches(split: Split, *, first_step: int, last_step: int, seed: int, batch_size: int,
                shards: Shards) -> Iterator[HostBatch]:
  """Batches that name the images of the steps first_step ... last_step - 1.

  Yields:
    sample_id, epoch and row (the place of the image in the split), int32 [b]; labels,
    int32 [b] or [b, num_classes], if there are any; with b this host's share of the batch.
  """
  for step in range(first_step, last_step):
    sample_id, epoch = samples_of_step(step, seed=seed, num_examples=split.num_examples,
                                       batch_size=batch_size, shards=shards)
    row = np.searchsorted(split.sample_id, sample_id).astype(np.int32)
    chex.assert_trees_all_equal(split.sample_id[row], sample_id)
    batch = dict(sample_id=sample_id, epoch=epoch, row=row)
    yield batch if split.labels is None else dict(batch, labels=split.labels[row])


def host_batches(split: Split, **steps) -> Iterator[HostBatch]:
  """`row_batches` with `images`, uint8 [b, H, W, 3], in place of the rows."""
  for batch in row_batches(split, **steps):
    yield dict(batch, images=split.images[batch.pop('row')])


def train_batches(pipeline: str, data: Split | Stream, *, policies: Sequence[Mapping[str, Any]],
                  image_size: int, resize: str, seed: int, shards: Shards, workers: int,
                  unreadable: Unreadable, **steps) -> Iterator[HostBatch]:
  """Batches as `augment.views.random_views` and `augment.views.crop_and_flip` take them.

  Args:
    pipeline: 'memory' gives whole images, which the device crops; 'device' gives their
      rows only, for `resident` images; 'tf_data' gives `crop1`, `crop2`, ..., uint8
      [b, size, size, 3], cropped by tf.data.
    data: the training images.
    policies: one for each view, whose crops tf_data takes.
    image_size: side of the views in pixels, of those whose policy has none of its own.
    resize: how tf_data resizes its crops, 'bicubic' or 'bilinear'.
    seed: the run's seed.
    shards: this host's part.
    workers: images that tf_data decodes at once; 0 lets it decide.
    unreadable: called with the ids of images that cannot be read. Their places in
      the batch are filled with other images of it.
    **steps: `first_step`, `last_step` and `batch_size`, as in `host_batches`.

  Raises:
    InputError: as `check_count`.
  """
  check_count(data.num_examples, shards.total)
  if isinstance(data, Split):
    if pipeline == 'device':
      return row_batches(data, seed=seed, shards=shards, **steps)
    batches = host_batches(data, seed=seed, shards=shards, **steps)
    if pipeline == 'memory':
      return batches
  # Imported here: the memory path must run where TensorFlow is not installed.
  from byol_jax.input_pipeline import tf_pipeline

  crop = tf_pipeline.random_crops(seed, policies, image_size, resize)
  if isinstance(data, Split):
    return tf_pipeline.with_crops(batches, data, crop, workers)
  first_step = steps.pop('first_step')
  records = lambda done, careful: tf_pipeline.train_records(
      data, crop, seed=seed, shards=shards, workers=workers, careful=careful,
      first_step=first_step + done, **steps)
  per_shard = steps['batch_size'] // shards.total
  return (_filled(batch, per_shard, unreadable)
          for batch in _checked(tf_pipeline.host_batches(records, data), data))


def evaluation_batches(data: Split | Stream, *, image_size: int, share: float, order: str,
                       batch_size: int, shards: Shards, workers: int, unreadable: Unreadable
                       ) -> Iterator[HostBatch]:
  """Each readable image of this host once, as `augment.views.center_views` takes them.

  Args:
    data: a split.
    image_size: side of the views in pixels.
    share: of `crops.center_view`.
    order: of `crops.center_view`.
    batch_size: images per batch on this host; the last batch may be smaller.
    shards: this host's part.
    workers: images decoded at once; 0 lets tf.data decide.
    unreadable: called with the ids of images that cannot be read and are left out.
  """
  if isinstance(data, Split):
    for start in range(0, len(data.images), batch_size):
      rows = slice(start, start + batch_size)
      batch = dict(sample_id=data.sample_id[rows], images=data.images[rows])
      yield batch if data.labels is None else dict(batch, labels=data.labels[rows])
    return
  from byol_jax.input_pipeline import tf_pipeline

  records = lambda done, careful: tf_pipeline.evaluation_records(
      data, tf_pipeline.center_crops(image_size, share, order), batch_size=batch_size,
      shards=shards, workers=workers, careful=careful).skip(done)
  for batch in _checked(tf_pipeline.host_batches(records, data), data):
    readable = batch.pop('readable')
    if not readable.all():
      unreadable(batch['sample_id'][~readable].tolist())
      batch = {name: array[readable] for name, array in batch.items()}
    if len(batch['sample_id']):
      yield batch


def check_count(num_examples: int, virtual_shards: int) -> None:
  """Raises InputError for fewer training images than virtual shards."""
  if num_examples < virtual_shards:
    raise InputError(f'{num_examples} images cannot fill {virtual_shards} virtual shards; '
                     f'set --config.data.virtual_shards to at most {num_examples}.')


def _checked(batches: Iterator[HostBatch], stream: Stream) -> Iterator[HostBatch]:
  """The batches, after a look at their labels."""
  for batch in batches:
    if 'labels' in batch:
      labels = batch['labels'][batch['readable']]
      ids = batch['sample_id'][batch['readable']]
      wrong = ids[out_of_range(labels, stream.num_classes)]
      if len(wrong):
        check_labels(stream.source(int(wrong[0])), labels, stream.num_classes)
    yield batch


def _filled(batch: HostBatch, per_shard: int, unreadable: Unreadable) -> HostBatch:
  """The batch with copies of readable images in the places of those that are not.

  The next readable image of the same virtual shard's part is taken, which does not
  depend on the number of hosts; failing that, the next of this host's batch.
  """
  readable = batch.pop('readable')
  if readable.all():
    return batch
  bad = np.flatnonzero(~readable)
  unreadable(batch['sample_id'][bad].tolist())
  if not readable.any():
    raise DataError(f'None of the {len(readable)} images of a batch can be read; the first is '
                    f'sample {batch["sample_id"][0]}.')
  source = np.arange(len(readable))
  for row in bad:
    start = row // per_shard * per_shard
    part = start + (row - start + np.arange(per_shard)) % per_shard
    whole = (row + np.arange(len(readable))) % len(readable)
    source[row] = next(r for r in (*part, *whole) if readable[r])
  # The place keeps its own id and epoch, and so its own augmentations.
  return {name: array if name in ('sample_id', 'epoch') else array[source]
          for name, array in batch.items()}
