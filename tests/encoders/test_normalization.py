"""Layers without statistics of the batch, against NumPy; averaged statistics of the target."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import parallel
from byol_jax.encoders import normalization

EPSILON = 1e-5


def group_norm(x, groups):
  """Mean 0 and variance 1 over the positions of an image and a group of its channels."""
  grouped = x.reshape(len(x), -1, groups, x.shape[-1] // groups).astype(np.float64)
  mean = grouped.mean(axis=(1, 3), keepdims=True)
  variance = grouped.var(axis=(1, 3), keepdims=True)
  return ((grouped - mean) / np.sqrt(variance + EPSILON)).reshape(x.shape)


@pytest.mark.parametrize('shape, groups', [((2, 3, 4, 32), 16), ((2, 64), 16), ((2, 3, 3, 8), 8)])
def test_group_norm_against_numpy(shape, groups):
  make = normalization.make('group', decay=.9, epsilon=EPSILON)
  layer = hk.transform_with_state(lambda x: make('norm')(x, True))
  x = np.random.default_rng(0).normal(2., 3., size=shape).astype(np.float32)
  params, state = layer.init(jax.random.key(0), x)
  assert not state and {array.shape for array in params['norm/norm'].values()} == {shape[-1:]}
  out, _ = layer.apply(params, state, None, x)
  np.testing.assert_allclose(out, group_norm(x, groups), atol=1e-5)


@pytest.mark.parametrize('kind', normalization.NORMALIZATIONS)
def test_a_layer_without_scale_and_offset_has_no_parameters(kind):
  def norm(affine):
    make = normalization.make(kind, decay=.9, epsilon=EPSILON)
    layer = hk.transform_with_state(lambda x: make('norm', affine=affine)(x, True))
    x = np.random.default_rng(0).normal(2., 3., size=(8, 32)).astype(np.float32)
    params, state = layer.init(jax.random.key(0), x)
    mapped = jax.pmap(lambda x: layer.apply(params, state, None, x)[0],
                      axis_name=parallel.AXIS, devices=jax.devices()[:1])
    return params, mapped(x[None])
  (with_scale, scaled), (without, out) = norm(True), norm(False)
  assert with_scale and not any(without.values())
  np.testing.assert_array_equal(out, scaled)


def test_kernels_are_standardized_for_each_output_channel():
  kernel = np.random.default_rng(0).normal(1., 5., size=(3, 3, 4, 6)).astype(np.float32)
  expected = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2)) / np.sqrt(3 * 3 * 4)
  np.testing.assert_allclose(normalization.standardized(kernel), expected, atol=1e-6)
  assert normalization.standardized(jnp.zeros((1, 1, 2, 2))).max() == 0
