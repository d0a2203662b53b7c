"""Rates, bytes and times of a run over many accelerators, computed from shapes alone."""

from typing import NamedTuple

import jax

from byol_jax import checkpoint
from byol_jax.train_step import TrainState

# Haiku's BatchNorm averages the mean and the mean of squares over the devices.
MOMENTS = 2
# Two views through the online and the target network ...
FORWARDS = 4
# ... and back through the online network.
BACKWARDS = 2


class Published(NamedTuple):
  """A run as the paper states it.

  accelerators: number of TPU cores.
  hours: hours of wall-clock time.
  epochs: passes over the training images.
  images: number of training images.
  batch_size: batch size over all accelerators.
  """

  accelerators: int
  hours: float
  epochs: int
  images: int
  batch_size: int

  @property
  def steps(self) -> int:
    """Optimizer steps of the run."""
    return self.epochs * self.images // self.batch_size

  @property
  def seconds_per_step(self) -> float:
    """Mean over the run."""
    return 3600 * self.hours / self.steps

  @property
  def images_per_second(self) -> float:
    """Mean over the run; each image counts once, whatever its number of views."""
    return self.batch_size / self.seconds_per_step


class Sizes(NamedTuple):
  """Counts of one network's run.

  parameters: parameters of the online network, including heads and classifier.
  parameter_bytes: their bytes; a step averages the same number of bytes of gradients.
  batch_norms: number of BatchNorm layers.
  batch_norm_channels: channels over all these layers.
  state_leaves: number of arrays in the training state.
  checkpoint_bytes: both networks, both BatchNorm states and the momentum.
  """

  parameters: int
  parameter_bytes: int
  batch_norms: int
  batch_norm_channels: int
  state_leaves: int
  checkpoint_bytes: int


def sizes(state: TrainState) -> Sizes:
  """Counts a training state, given as arrays or shapes."""
  scales = [arrays['scale'] for arrays in state.online_params.values() if 'scale' in arrays]
  return Sizes(
      parameters=sum(leaf.size for leaf in jax.tree.leaves(state.online_params)),
      parameter_bytes=num_bytes(state.online_params),
      batch_norms=len(scales), batch_norm_channels=sum(scale.size for scale in scales),
      state_leaves=len(jax.tree.leaves(state)),
      checkpoint_bytes=num_bytes(checkpoint.trees_of(state)))


def num_bytes(tree) -> int:
  """Bytes of all arrays of a tree, given as arrays or shapes."""
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def batch_norm_reductions(layers: int) -> int:
  """The number of BatchNorm all-reduces in a step, before the compiler merges any."""
  return MOMENTS * (FORWARDS + BACKWARDS) * layers


def batch_norm_bytes(channels: int) -> int:
  """Bytes that these all-reduces average; float32 even with bfloat16."""
  return 4 * batch_norm_reductions(channels)


def ring_bytes(size: float, devices: int) -> float:
  """Bytes that each of `devices` sends in a ring all-reduce of `size` bytes.

  It is a reduce-scatter and an all-gather; in each, a device sends devices - 1 of the
  `devices` parts.
  """
  return 2 * (devices - 1) / devices * size


def scaled_seconds(published: Published, accelerators: int, work: float = 1.) -> float:
  """Seconds per step on other accelerators of the same kind, at the same batch.

  Args:
    published: the run that was timed.
    accelerators: their number.
    work: operations of a step, relative to the published run's.
  """
  return published.seconds_per_step * work * published.accelerators / accelerators


def host_images_per_second(batch_size: int, seconds_per_step: float, hosts: int) -> float:
  """Images that each host must read, decode and crop (into two views) per second."""
  return batch_size / seconds_per_step / hosts


def dispatch_seconds(state_leaves: int, seconds_per_leaf: float) -> float:
  """The host's time for one call of a pmapped step, in a run of several processes."""
  return state_leaves * seconds_per_leaf


def break_even(published: Published, seconds: float, work: float = 1.) -> float:
  """The number of accelerators at which a step takes `seconds`."""
  return published.accelerators * work * published.seconds_per_step / seconds


def largest_batch(small: tuple[int, float], large: tuple[int, float], memory: float) -> int:
  """The images per core that fill its memory, by linear extrapolation from two batches.

  Args:
    small: images per core, and the bytes of memory that they take.
    large: the same for more images.
    memory: bytes of memory of a core.
  """
  per_image = (large[1] - small[1]) / (large[0] - small[0])
  return int(small[0] + (memory - small[1]) / per_image)
