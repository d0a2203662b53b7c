"""The order of images in memory; for images on disk see `tf_pipeline.train_records`.

The order is defined over a fixed number of virtual shards: shard v has the ids that are v
modulo the number of shards. Each shard goes through its images repeatedly, each time in an
order drawn from (seed, epoch, shard), and gives every global batch the same number of
images. Every host owns the same number of consecutive shards, and their part of each batch.
Therefore the global batches are the same for any number of hosts, no image is left out of an
epoch, and the batch of any step can be computed without going through earlier batches.
"""

from collections.abc import Iterable, Iterator, Mapping
import functools

import numpy as np

from byol_jax.input_pipeline.records import Shards


@functools.lru_cache(maxsize=1024)
def shard_order(seed: int, epoch: int, shard: int, size: int) -> np.ndarray:
  """A permutation of 0 ... size - 1, drawn from (seed, epoch, shard)."""
  order = permutation(size, seed, epoch, shard)
  order.setflags(write=False)  # The cache returns this same array to all callers.
  return order


def samples_of_step(step: int, *, seed: int, num_examples: int, batch_size: int,
                    shards: Shards) -> tuple[np.ndarray, np.ndarray]:
  """The images of one step that this host owns.

  Args:
    step: number of optimizer steps done before.
    seed: the run's seed.
    num_examples: number of images in the split over all hosts.
    batch_size: images per step over all hosts; a multiple of `shards.total`.
    shards: this host's shards.

  Returns:
    sample_id and epoch (number of passes that the shard has completed), int32
    [batch_size * owned / total], one shard after another.
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


def part_order(size: int, *, shards: int, parts: int, devices: int) -> np.ndarray:
  """The order of a host batch's rows in which each device has its share, one part after another.

  Every part takes the same number of images from each virtual shard, so that the parts do not
  depend on the number of hosts and devices.

  Args:
    size: number of images in this host's batch, which come one shard after another.
    shards: number of virtual shards in this batch.
    parts: number of parts of the batch.
    devices: number of devices of this host.
  """
  rows = np.arange(size).reshape(shards, parts, -1).swapaxes(0, 1)
  return rows.reshape(parts, devices, -1).swapaxes(0, 1).reshape(-1)


def in_part_order(batches: Iterable[Mapping[str, np.ndarray]], **sizes: int
                  ) -> Iterator[dict[str, np.ndarray]]:
  """Host batches with their rows in `part_order`, which takes the other `sizes`."""
  for batch in batches:
    order = part_order(len(batch['sample_id']), **sizes)
    yield {name: array[order] for name, array in batch.items()}


def dispatches(first_step: int, last_step: int, max_steps: int, size: int) -> Iterator[int]:
  """The number of steps in each dispatch, from `first_step` to `last_step`.

  Dispatches end at multiples of `size`, wherever a run was resumed. The steps after the last
  multiple in `max_steps` are dispatched one by one.
  """
  step = first_step
  while step < last_step:
    end = min((step // size + 1) * size, last_step)
    count = 1 if end > max_steps // size * size else end - step
    yield count
    step += count


def permutation(size: int, *key: int) -> np.ndarray:
  """A permutation of 0 ... size - 1, int64, drawn from non-negative integers `key`.

  The places are sorted by a hash of each, because NumPy's shuffles may change between versions.
  """
  state = np.uint64(0)
  for value in key:
    state = mix(state + np.uint64(value))
  return np.argsort(mix(state ^ mix(np.arange(size, dtype=np.uint64))), kind='stable')


def mix(x: np.ndarray) -> np.ndarray:
  """splitmix64 (Steele et al. 2014): a bijection of 64-bit words that spreads every bit."""
  with np.errstate(over='ignore'):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
