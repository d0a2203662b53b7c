import chex
import pytest

from byol_jax.optimizers import sgd
from byol_jax.train_step import apply_momentum
from tests.optimizers.steps import numpy_run, run


@pytest.mark.parametrize('decay, momentum', [(.1, .9), (0., .5), (.1, 0.)])
def test_several_steps_against_numpy(decay, momentum):
  rates = [0., .3, .6, .1]
  actual = run(sgd.build(weight_decay=decay, momentum=momentum), rates, apply_momentum)
  expected = numpy_run(lambda p, g, m, _, is_weight: momentum * m + g + decay * p * is_weight,
                       rates)
  chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)
