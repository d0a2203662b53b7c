"""Normalisation layers of the networks, with or without the statistics of the batch."""

from collections.abc import Callable, Iterator
import contextlib
import math

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax.distributed import parallel

# 'batch': BatchNorm over all devices, as in the paper. 'group': GroupNorm, and convolutions with
# standardized weights, which need no statistics of the batch (Richemond et al. 2020, arXiv
# 2010.10241: 73.9 instead of 74.3 top-1 on ImageNet).
NORMALIZATIONS = ('batch', 'group')
# The number of groups in each GroupNorm, or fewer if it does not divide the channels.
GROUPS = 16


def make(normalization: str, *, decay: float, epsilon: float) -> Callable[..., hk.Module]:
  """Returns `make_norm(name, affine, **kwargs)`, which makes a layer `norm(out, is_training)`.

  Without `affine` the layer has no scale and offset.

  Args:
    normalization: one of NORMALIZATIONS.
    decay: decay of the running statistics of BatchNorm.
    epsilon: added to the variance.
  """
  def batch_norm(name=None, affine=True, **kwargs):
    # Parameters are created outside of any device map, where the axis does not exist.
    axis = None if hk.running_init() else parallel.AXIS
    return hk.BatchNorm(create_scale=affine, create_offset=affine, decay_rate=decay,
                        eps=epsilon, cross_replica_axis=axis, name=name, **kwargs)

  def group_norm(name=None, affine=True, **kwargs):
    return GroupNorm(epsilon, affine=affine, name=name, **kwargs)

  return dict(batch=batch_norm, group=group_norm)[normalization]


class GroupNorm(hk.Module):
  """Wu and He 2018: mean and variance over one image's positions and a group of its channels."""

  def __init__(self, epsilon: float, *, affine: bool = True, scale_init=jnp.ones,
               name: str | None = None):
    super().__init__(name=name)
    self._affine = affine
    self._epsilon, self._scale_init = epsilon, scale_init

  def __call__(self, inputs: jax.Array, is_training: bool) -> jax.Array:
    """[B, ..., C] -> [B, ..., C]; training and evaluation are the same."""
    del is_training
    norm = hk.GroupNorm(math.gcd(GROUPS, inputs.shape[-1]), eps=self._epsilon,
                        create_scale=self._affine, create_offset=self._affine,
                        scale_init=self._scale_init if self._affine else None, name='norm')
    return norm(inputs)


@contextlib.contextmanager
def standardized_weights(normalization: str) -> Iterator[None]:
  """Makes convolutions use standardized weights if the normalisation is 'group'.

  Qiao et al. 2019: for each output channel, mean 0 and variance 1 / (number of its weights). The
  parameters themselves do not change.
  """
  def getter(next_getter, value, context):
    value = next_getter(value)
    is_kernel = isinstance(context.module, hk.Conv2D) and context.name == 'w'
    return standardized(value) if is_kernel else value

  if normalization == 'group':
    with hk.custom_getter(getter):
      yield
  else:
    yield


def standardized(kernel: jax.Array, epsilon: float = 1e-8) -> jax.Array:
  """Gives a kernel [height, width, in, out] mean 0, variance 1 / (height width in) per output."""
  full = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
  axes, count = (0, 1, 2), math.prod(kernel.shape[:3])
  variance = jnp.var(full, axis=axes, keepdims=True)
  centred = full - jnp.mean(full, axis=axes, keepdims=True)
  return (centred * jax.lax.rsqrt(variance * count + epsilon)).astype(kernel.dtype)
