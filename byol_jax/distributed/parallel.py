"""Many devices and many hosts: how states and batches are spread over devices.

The training state is replicated and has no device axis, so a checkpoint does
not depend on the number of devices. A batch has leading axes [D, B/D, ...].
The step function runs under `jax.pmap` over the axis `AXIS` and averages with
`mean_over_devices`.
"""

from collections.abc import Callable, Sequence
import math
import os
import sys
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from byol_jax.distributed import preemption
from byol_jax.errors import InputError

AXIS = 'i'
# Seconds without a heartbeat after which the other processes of a job also end, and
# seconds that a process waits for the others when the job starts.
HEARTBEAT, INITIALIZATION = 60, 300
# The number of bytes that `gather_rows` puts on each device at once.
GATHERED_BYTES = 2 ** 28
Tree = TypeVar('Tree')


def initialize(*, coordinator_address: str | None = None, num_processes: int | None = None,
               process_id: int | None = None) -> None:
  """Joins the processes of a job. Call it before any device is used.

  Args:
    coordinator_address: host:port of process 0. Without the three arguments the
      cluster is detected: Cloud TPU, GKE, Slurm, Open MPI.
    num_processes: number of processes in the job.
    process_id: number of this process, 0 ... num_processes - 1.

  Raises:
    InputError: some of the three are missing, or no cluster is detected.
  """
  given = (coordinator_address, num_processes, process_id)
  if any(part is not None for part in given) and any(part is None for part in given):
    raise InputError('Give --coordinator_address, --num_processes and --process_id together, or '
                     'none of them and --multihost.')
  if num_processes is not None and not 0 <= process_id < num_processes:
    raise InputError(f'--process_id is {process_id}; with --num_processes={num_processes} it can '
                     f'be 0 to {num_processes - 1}.')
  if coordinator_address is not None:
    host, _, port = coordinator_address.rpartition(':')
    if not host or not port.isdigit():
      raise InputError(f'--coordinator_address is {coordinator_address!r}; it must be HOST:PORT.')
    print(f'Joining {coordinator_address} as process {process_id} of {num_processes}; waits up to '
          f'{INITIALIZATION} s for the others.', file=sys.stderr, flush=True)
  # JAX's service would swallow SIGTERM, which `preemption` handles itself.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT,
                               initialization_timeout=INITIALIZATION)
  except (ValueError, RuntimeError) as error:
    help_text = ('If no cluster is detected, give --coordinator_address, --num_processes and '
                 '--process_id.' if coordinator_address is None else 'Process 0 must be able to '
                 f'listen at {coordinator_address}, and the others to reach it.')
    raise InputError('The processes of the job could not be joined: '
                     f'{str(error).strip().splitlines()[0]} {help_text}') from error
  # The first collective opens the connections and waits 30 s for the others on CPU. Do it
  # here, while all are together, and not after one has verified a checkpoint.
  barrier('joined')


def mean_over_devices(tree: Tree) -> Tree:
  """The mean over all devices of all hosts. Call it inside the step."""
  return jax.lax.pmean(tree, axis_name=AXIS)


def gather_over_devices(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The rows [b, ...] of all devices as [B, ...], and the index of this device's first, int32 [].

  Call it inside the step. Gradients with respect to the rows of another device go back to that
  device and are summed there: the mean over devices of the gradients of local means is the
  gradient of the global mean.
  """
  return (jax.lax.all_gather(rows, AXIS, tiled=True),
          jax.lax.axis_index(AXIS) * rows.shape[0])


def pmap_step(step: Callable[..., Any], devices: Sequence[jax.Device]) -> Callable[..., Any]:
  """Maps `step(state, batch) -> outputs` over the devices.

  The state is replicated and donated: its old buffers are reused for the new
  state. The batch is split along its leading axis. The outputs are replicated.
  pmap does not check this: a value that was not averaged over the devices would
  differ between them without an error (the tests check that there is none).
  """
  # With several processes pmap finds the devices of all of them itself.
  return jax.pmap(step, axis_name=AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0,
                  devices=devices if jax.process_count() == 1 else None)


def jit_step(step: Callable[..., Any], devices: Sequence[jax.Device]) -> Callable[..., Any]:
  """The same map as `pmap_step`, as a jitted function.

  Unlike the result of pmap, it can be traced, lowered and compiled ahead of time.
  The devices may belong to a topology that is not attached.
  """
  def body(state, batch):
    return step(state, jax.tree.map(lambda x: x[0], batch))

  return jax.jit(jax.shard_map(
      body, mesh=_mesh(devices), in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
      # With the check, shard_map would itself sum gradients over the devices, before the mean.
      out_specs=PartitionSpec(), check_vma=False), donate_argnums=0)


def abstract_inputs(state: Tree, batch: Tree, devices: Sequence[jax.Device]) -> tuple[Tree, Tree]:
  """Shapes of a state and a batch [B, ...] in the form of `jit_step`, placed on the devices."""
  def place(x, shape, spec):
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=NamedSharding(_mesh(devices), spec))

  count = len(devices)
  return (jax.tree.map(lambda x: place(x, x.shape, PartitionSpec()), state),
          jax.tree.map(lambda x: place(x, (count, x.shape[0] // count, *x.shape[1:]),
                                       PartitionSpec(AXIS)), batch))


def pmap_evaluation(function: Callable[..., Any], devices: Sequence[jax.Device]
                    ) -> Callable[..., Any]:
  """Maps `function(variables, batch)` over this host's devices; outputs keep the device axis."""
  return jax.pmap(function, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def replicate(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
  """Puts a copy of every array on every device.

  A donated array that was not placed like this makes pmap fail in multi-process
  runs, so every state must pass through here before its first step.
  """
  # Copy first: device_put shares the buffer of an array that is already on the
  # device, and donating the state would delete the caller's array.
  return jax.device_put(jax.tree.map(np.array, tree),
                        NamedSharding(_mesh(devices), PartitionSpec()))


def shard_batch(batch: Tree, devices: Sequence[jax.Device]) -> Tree:
  """Splits host arrays [B, ...] into [D, B/D, ...], one slice on each device."""
  sharding = NamedSharding(_mesh(devices), PartitionSpec(AXIS))
  count = len(devices)

  def place(array):
    _check_divisible(array, devices)
    return jax.device_put(array.reshape(count, -1, *array.shape[1:]), sharding)

  return jax.tree.map(place, batch)


def shard_steps(batches: Sequence[Tree], devices: Sequence[jax.Device]) -> Tree:
  """Arranges the host batches [B, ...] of n steps as [D, n, B/D, ...], one slice per device."""
  sharding = NamedSharding(_mesh(devices), PartitionSpec(AXIS))

  def place(*arrays):
    _check_divisible(arrays[0], devices)
    parts = [array.reshape(len(devices), 1, -1, *array.shape[1:]) for array in arrays]
    # A single array is not copied: the crops of a large batch are hundreds of megabytes.
    return jax.device_put(parts[0] if len(parts) == 1 else np.concatenate(parts, 1), sharding)

  return jax.tree.map(place, *batches)


def copy_to_each(array: np.ndarray, devices: Sequence[jax.Device]) -> jax.Array:
  """Puts the whole array on each device, as [D, ...] with the array as each device's slice."""
  return jax.device_put(np.broadcast_to(array, (len(devices), *array.shape)),
                        NamedSharding(_mesh(devices), PartitionSpec(AXIS)))


def free_bytes(devices: Sequence[jax.Device]) -> int:
  """Free memory that every device has; on CPU, each device's equal share of the machine's."""
  stats = [device.memory_stats() for device in devices]
  if all(stats):
    return min(one['bytes_limit'] - one['bytes_in_use'] for one in stats)
  return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') // len(devices)


def fetch(tree: Tree) -> Tree:
  """Copies replicated arrays to the host as NumPy, from the first local device.

  This is a real copy: on CPU a view would share the device buffer, which is donated later.
  """
  return jax.tree.map(lambda x: np.array(x.addressable_shards[0].data), tree)


def gather_rows(rows: np.ndarray) -> np.ndarray:
  """Returns the rows [n, ...] of all processes, in process order, on every process.

  The numbers of rows may differ, and may be 0 if the shape of a row is the same.
  """
  if jax.process_count() == 1:
    return rows
  counts = multihost_utils.process_allgather(np.int32(len(rows)))
  row_bytes = rows.dtype.itemsize * math.prod(rows.shape[1:]) * len(counts)
  size = max(1, GATHERED_BYTES // row_bytes)
  parts: list[list[np.ndarray]] = [[] for _ in counts]
  for start in range(0, int(counts.max()), size):
    length = min(size, int(counts.max()) - start)
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    own = rows[start:start + length]
    padded[:len(own)] = own
    # All processes send the same amount; the counts tell what is padding.
    for part, count, received in zip(parts, counts, multihost_utils.process_allgather(padded)):
      part.append(received[:max(0, int(count) - start)])
  # rows[:0] is there because no process may have rows.
  return np.concatenate([rows[:0], *(piece for part in parts for piece in part)]
                        ).astype(rows.dtype)


def from_first_process(number: int) -> int:
  """Returns the first process's number on all processes."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def barrier(name: str) -> None:
  """Waits until every process reaches this call."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def print_once(text: str) -> None:
  """Prints a line, from the first process only."""
  if is_first_process():
    preemption.print_line(text)


def check_batch_size(batch_size: int, virtual_shards: int, name: str = 'train.batch_size',
                     parts: int = 1, devices: int | None = None) -> None:
  """Raises InputError unless devices and virtual shards divide all parts of the global batch.

  `devices` is the number over all hosts; None uses the available devices.
  """
  times = '' if parts == 1 else f'{parts} x '
  devices = jax.device_count() if devices is None else devices
  for divisor, what in ((devices, 'devices'),
                        (virtual_shards, 'virtual shards (data.virtual_shards)')):
    if batch_size % (divisor * parts):
      both = parts * math.lcm(devices, virtual_shards)
      lower = batch_size - batch_size % both
      nearest = f'{lower} or {lower + both}' if lower else f'{both}'
      raise InputError(f'{name} is {batch_size}, which {times}{divisor} {what} do not divide; '
                       f'the nearest sizes that work are {nearest}.')


def is_first_process() -> bool:
  """Whether this process writes the logs and reports."""
  return jax.process_index() == 0


def _check_divisible(array: np.ndarray, devices: Sequence[jax.Device]) -> None:
  if len(array) % len(devices):
    raise InputError(f'{len(array)} examples cannot be split over {len(devices)} devices.')


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
  return Mesh(np.array(devices), (AXIS,))
