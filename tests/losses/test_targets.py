"""What the predictions regress."""

import jax.numpy as jnp
import numpy as np

from byol_jax.losses import targets


def test_averaged_statistics_start_with_the_online_ones_and_move_with_tau():
  draw = lambda seed: {'norm/~/mean_ema': dict(
      average=np.random.default_rng(seed).normal(size=3).astype(np.float32),
      counter=np.int32(seed))}
  target, online = draw(1), draw(2)
  first = targets.averaged_statistics(target, online, jnp.int32(0), jnp.float32(.9))
  later = targets.averaged_statistics(target, online, jnp.int32(5), jnp.float32(.9))
  own, other = (tree['norm/~/mean_ema']['average'] for tree in (target, online))
  np.testing.assert_allclose(first['norm/~/mean_ema']['average'], other, rtol=1e-6)
  np.testing.assert_allclose(later['norm/~/mean_ema']['average'], .9 * own + .1 * other,
                             rtol=1e-5)
