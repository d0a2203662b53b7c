"""The order of the images, and batches on the devices.

The order is defined over a fixed number of virtual shards: shard v holds the ids
that are v modulo their number. Each shard goes through its images again and again,
each time in an order drawn from (seed, epoch, shard), and gives every global batch
the same number of images. A host owns an equal run of shards and its part of each
batch. So the global batches are the same for any number of hosts, no image is left
out of a pass, and the batch of any step is found without going through those before.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
import functools
from typing import Any

import jax
import numpy as np

from byol_jax import hashing, parallel
from byol_jax.datasets import Shards, Split
from byol_jax.errors import InputError

HostBatch = dict[str, np.ndarray]
PIPELINES = ('memory', 'tf_data')


@functools.lru_cache(maxsize=1024)
def shard_order(seed: int, epoch: int, shard: int, size: int) -> np.ndarray:
  """A permutation of 0 ... size - 1, drawn from (seed, epoch, shard)."""
  order = hashing.permutation(size, seed, epoch, shard)
  order.setflags(write=False)  # The cache hands out this very array.
  return order


def samples_of_step(step: int, *, seed: int, num_examples: int, batch_size: int,
                    shards: Shards) -> tuple[np.ndarray, np.ndarray]:
  """The images of one step that this host owns.

  Args:
    step: optimizer steps done before.
    seed: the run's seed.
    num_examples: images in the split over all hosts.
    batch_size: images per step over all hosts; a multiple of `shards.total`.
    shards: this host's part.

  Returns:
    sample_id and epoch (passes that its shard has completed), int32
    [batch_size * owned / total], shard after shard.
  """
  per_shard = batch_size // shards.total
  ids, epochs = [], []
  for shard in shards.owned:
    size = len(range(shard, num_examples, shards.total))
    position = np.arange(step * per_shard, (step + 1) * per_shard)
    epoch, place = np.divmod(position, size)
    for e in np.unique(epoch):
      order = shard_order(seed, int(e), shard, size)
      ids.append(order[place[epoch == e]] * shards.total + shard)
    epochs.append(epoch)
  return np.concatenate(ids).astype(np.int32), np.concatenate(epochs).astype(np.int32)


def host_batches(split: Split, *, first_step: int, last_step: int, seed: int, batch_size: int,
                 shards: Shards) -> Iterator[HostBatch]:
  """Batches of whole images for the steps first_step ... last_step - 1.

  Yields:
    sample_id and epoch, int32 [b]; images, uint8 [b, H, W, 3]; labels, int32 [b],
    if there are any; with b this host's share of the batch.

  """
  for step in range(first_step, last_step):
    sample_id, epoch = samples_of_step(step, seed=seed, num_examples=split.num_examples,
                                       batch_size=batch_size, shards=shards)
    rows = np.searchsorted(split.sample_id, sample_id)
    batch = dict(sample_id=sample_id, epoch=epoch, images=split.images[rows])
    if split.labels is not None:
      batch['labels'] = split.labels[rows]
    yield batch


def train_batches(pipeline: str, split: Split, *, view1: Mapping[str, Any],
                  view2: Mapping[str, Any], image_size: int, seed: int, **kwargs
                  ) -> Iterator[HostBatch]:
  """Batches as `augment.two_views` takes them.

  Args:
    pipeline: 'memory' gives whole images, which the device crops; 'tf_data' gives
      `crop1` and `crop2`, uint8 [b, image_size, image_size, 3], cropped by tf.data.
    split: the training images.
    view1: policy of the first view; its crop is used by tf_data.
    view2: policy of the second view.
    image_size: side of the views in pixels.
    seed: the run's seed.
    **kwargs: of `host_batches`.

  Raises:
    InputError: an unknown pipeline, or fewer images than virtual shards.
  """
  if pipeline not in PIPELINES:
    raise InputError(f'data.pipeline is {pipeline!r}; it can be {" or ".join(PIPELINES)}.')
  shards = kwargs['shards']
  if split.num_examples < shards.total:
    raise InputError(f'{split.num_examples} images cannot fill {shards.total} virtual shards; '
                     f'set data.virtual_shards to at most {split.num_examples}.')
  batches = host_batches(split, seed=seed, **kwargs)
  if pipeline == 'memory':
    return batches
  return _with_tf_data(batches, split, seed=seed, view1=view1, view2=view2, size=image_size)


def to_devices(batches: Iterator[HostBatch], devices: Sequence[jax.Device], ahead: int = 2
               ) -> Iterator[Mapping[str, jax.Array]]:
  """Places batches on the devices, `ahead` of them before they are asked for."""
  queue = deque()
  for batch in batches:
    queue.append(parallel.shard_batch(batch, devices))
    if len(queue) > ahead:
      yield queue.popleft()
  yield from queue


def _with_tf_data(batches: Iterator[HostBatch], split: Split, **crops) -> Iterator[HostBatch]:
  # Imported here: the memory path must run where TensorFlow is not installed.
  import tensorflow as tf

  from byol_jax import preprocess

  tf.config.set_visible_devices([], 'GPU')
  signature = dict(sample_id=tf.TensorSpec([None], tf.int32),
                   epoch=tf.TensorSpec([None], tf.int32),
                   images=tf.TensorSpec([None, *split.images.shape[1:]], tf.uint8))
  if split.labels is not None:
    signature['labels'] = tf.TensorSpec([None], tf.int32)

  def crop(batch):
    return tf.data.Dataset.from_tensor_slices(batch).map(
        lambda record: preprocess.two_crops(record, **crops),
        num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(
            tf.shape(batch['sample_id'], tf.int64)[0])

  dataset = tf.data.Dataset.from_generator(lambda: batches, output_signature=signature)
  return dataset.flat_map(crop).prefetch(2).as_numpy_iterator()
