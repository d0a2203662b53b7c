"""Puts batches on the devices before the step that needs them."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
import itertools
from types import MappingProxyType

import jax

from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline.batches import HostBatch
from byol_jax.input_pipeline.memory import Split


def resident(split: Split, devices: Sequence[jax.Device]) -> dict[str, jax.Array]:
  """Puts all of this host's images on each of its devices: `resident` [D, n, H, W, 3].

  Raises:
    InputError: the images would take more than half of a device's free memory.
  """
  free = parallel.free_bytes(devices)
  if split.images.nbytes > free / 2:
    raise InputError(
        f'data.pipeline device would put {len(split.images)} images, '
        f'{split.images.nbytes >> 20} MiB, on each device, which has {free >> 20} MiB free; they '
        'may take at most half of that. Set '
        '--config.data.pipeline=memory.')
  return dict(resident=parallel.copy_to_each(split.images, devices))


def to_devices(batches: Iterator[HostBatch], devices: Sequence[jax.Device], ahead: int = 2,
               resident: Mapping[str, jax.Array] = MappingProxyType({}),
               steps: Iterable[int] | None = None) -> Iterator[Mapping[str, jax.Array]]:
  """Places batches on the devices, `ahead` batches before they are requested.

  Arrays that are already `resident` there are added to every batch. With `steps`, as returned by
  `dispatches`, that many batches n are stacked along an axis of steps: [D, n, B/D, ...].
  """
  if steps is None:
    placed = (parallel.shard_batch(batch, devices) for batch in batches)
  else:
    placed = (parallel.shard_steps(list(itertools.islice(batches, count)), devices)
              for count in steps)
  queue = deque()
  for batch in placed:
    queue.append(dict(batch, **resident))
    if len(queue) > ahead:
      yield queue.popleft()
  yield from queue
