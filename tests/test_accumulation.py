import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import accumulation

BATCH = dict(x=jnp.arange(12.).reshape(6, 2), resident=jnp.array([10.]))


def of_part(carried, part):
  return dict(mean=jnp.mean(part['x'] + part['resident']), rows=jnp.float32(len(part['x']))), (
      carried * 10 + part['x'][0, 0])


@pytest.mark.parametrize('count, carried', [(1, 10.), (2, 106.), (3, 1048.)])
def test_the_mean_and_what_is_carried(count, carried):
  means, last = accumulation.mean_over_parts(of_part, jnp.float32(1), BATCH, count)
  np.testing.assert_allclose(means['mean'], 15.5)
  assert means['rows'] == 6 // count
  assert last == carried


def test_a_batch_that_the_parts_do_not_divide():
  with pytest.raises(TypeError, match='reshape'):
    accumulation.mean_over_parts(of_part, jnp.float32(1), BATCH, 4)
