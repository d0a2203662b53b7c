"""Many devices and many hosts: the only module that knows how work is spread.

The training state is replicated: it carries no device axis, so a checkpoint does
not depend on the number of devices. A batch has leading axes [D, B/D, ...].
The step function runs under `jax.pmap` over the axis `AXIS` and averages with
`mean_over_devices`.
"""

from collections.abc import Callable, Sequence
import math
import os
import pathlib
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from byol_jax.errors import InputError

AXIS = 'i'

Tree = TypeVar('Tree')


def mean_over_devices(tree: Tree) -> Tree:
  """The mean over all devices of all hosts; to be called inside the step."""
  return jax.lax.pmean(tree, axis_name=AXIS)


def pmap_step(step: Callable[..., Any], devices: Sequence[jax.Device]) -> Callable[..., Any]:
  """Maps `step(state, batch) -> outputs` over the devices.

  The state is replicated and donated: its old buffers are reused for the new
  state. The batch is split along its leading axis. The outputs are replicated,
  which pmap does not check: a value that was not averaged over the devices would
  differ between them without an error (the tests prove that none is).
  """
  return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None,
                  donate_argnums=0, devices=devices)


def pmap_evaluation(function: Callable[..., Any], devices: Sequence[jax.Device]
                    ) -> Callable[..., Any]:
  """Maps `function(variables, batch)` over the devices; outputs keep the device axis."""
  return jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def replicate(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
  """Puts a copy of every array on every device.

  A donated array that was not placed like this makes pmap fail in multi-process
  runs, so every state passes here before its first step.
  """
  # From a copy: device_put shares the buffer of an array that lies on the device
  # already, and a donated state would take the caller's array with it.
  return jax.device_put(jax.tree.map(np.array, tree),
                        NamedSharding(_mesh(devices), PartitionSpec()))


def shard_batch(batch: Tree, devices: Sequence[jax.Device]) -> Tree:
  """Splits host arrays [B, ...] into [D, B/D, ...], one slice on each device."""
  sharding = NamedSharding(_mesh(devices), PartitionSpec(AXIS))
  count = len(devices)

  def place(array):
    if len(array) % count:
      raise InputError(f'{len(array)} examples cannot be split over {count} devices.')
    return jax.device_put(array.reshape(count, -1, *array.shape[1:]), sharding)

  return jax.tree.map(place, batch)


def fetch(tree: Tree) -> Tree:
  """Copies replicated arrays to the host as NumPy, from the first local device.

  A true copy: on CPU the device buffer itself would be seen, and donated later.
  """
  return jax.tree.map(lambda x: np.array(x.addressable_shards[0].data), tree)


def check_batch_size(batch_size: int, virtual_shards: int, name: str = 'train.batch_size') -> None:
  """Raises InputError unless devices and virtual shards divide the global batch."""
  for divisor, what in ((jax.device_count(), 'devices'),
                        (virtual_shards, 'virtual shards (data.virtual_shards)')):
    if batch_size % divisor:
      both = math.lcm(jax.device_count(), virtual_shards)
      lower = batch_size - batch_size % both
      nearest = f'{lower} or {lower + both}' if lower else f'{both}'
      raise InputError(f'{name} is {batch_size}, which {divisor} {what} do not divide; '
                       f'the nearest sizes that work are {nearest}.')


def is_first_process() -> bool:
  """Whether this process is the one that logs and writes reports."""
  return jax.process_index() == 0


def writable_folder(workdir: str | pathlib.Path) -> pathlib.Path:
  """Makes the folder, tries to write into it, and returns its absolute path."""
  path = pathlib.Path(workdir).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.writable.{os.getpid()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    raise InputError(f'The workdir {path} is not writable ({error.strerror}); give another '
                     '--workdir.') from error
  return path


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
  return Mesh(np.array(devices), (AXIS,))
