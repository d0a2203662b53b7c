import functools

import haiku as hk
import jax
import numpy as np
import pytest

from byol_jax.encoders.convolution import Conv2D

PADDINGS = dict(same=lambda kernel: 'SAME', symmetric=lambda kernel: [(kernel // 2,) * 2] * 2)


@pytest.mark.parametrize('padding', PADDINGS)
@pytest.mark.parametrize('kernel, stride', [(1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize('size', [(1, 1), (2, 2), (2, 4), (5, 2)])
def test_it_is_haikus_with_any_kernel_on_any_image(size, kernel, stride, padding):
  images = jax.random.normal(jax.random.key(0), (2, *size, 4))
  results = []
  for kind in (functools.partial(hk.Conv2D, with_bias=False), Conv2D):
    def apply(x, kind=kind):
      return kind(5, kernel, stride, padding=PADDINGS[padding](kernel), name='conv')(x)
    convolution = hk.without_apply_rng(hk.transform(apply))
    params = convolution.init(jax.random.key(1), images)
    outputs, gradients = jax.vjp(convolution.apply, params, images)
    results.append((params, outputs, gradients(outputs)))
  (haikus, *expected), (params, *found) = results
  jax.tree.map(np.testing.assert_array_equal, params, haikus)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found,
               expected)
