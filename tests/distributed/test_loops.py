import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import loops

BATCH = dict(x=jnp.arange(12.).reshape(6, 2), resident=jnp.array([10.]))


def of_part(carried, part):
  return dict(mean=jnp.mean(part['x'] + part['resident']), rows=jnp.float32(len(part['x']))), (
      carried * 10 + part['x'][0, 0])


@pytest.mark.parametrize('count, carried', [(1, 10.), (2, 106.), (3, 1048.)])
def test_the_mean_and_what_is_carried(count, carried):
  means, last = loops.mean_over_parts(of_part, jnp.float32(1), BATCH, count)
  np.testing.assert_allclose(means['mean'], 15.5)
  assert means['rows'] == 6 // count
  assert last == carried


def test_a_batch_that_the_parts_do_not_divide():
  with pytest.raises(TypeError, match='reshape'):
    loops.mean_over_parts(of_part, jnp.float32(1), BATCH, 4)


@pytest.mark.parametrize('count', [1, 3])
def test_steps_go_on_from_each_other_and_share_what_is_resident(count):
  batches = dict(x=jnp.arange(2. * count).reshape(count, 2), resident=jnp.array([10.]))

  def step(state, batch):
    return state * 2 + batch['x'][0] + batch['resident'][0], dict(state=state)

  state, scalars = loops.over_steps(step, jnp.float32(1), batches)
  expected = [1.]
  for x in range(0, 2 * count, 2):
    expected.append(expected[-1] * 2 + x + 10)
  assert state == expected[-1]
  np.testing.assert_array_equal(scalars['state'], expected[:-1])
