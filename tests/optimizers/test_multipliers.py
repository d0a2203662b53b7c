import chex
import numpy as np
import optax
import pytest

from byol_jax.optimizers import lars
from byol_jax.optimizers.multipliers import with_multipliers
from byol_jax.train_step import apply_momentum
from tests.optimizers.steps import ADAPTED, SHAPES, draw, run

RATES = [.5, .3, .4]


@pytest.fixture
def optimizer():
  return lars.build(weight_decay=.1, eta=.02, momentum=.9)


def factors(optimizer, rates=RATES[:1], **options):
  """How much further each parameter moves, (module, name) -> factor."""
  once = run(optimizer, rates, apply_momentum)
  often = run(with_multipliers(optimizer, **options), rates, apply_momentum)
  return {(module, name): np.median((often[module][name] - before)
                                    / (once[module][name] - before))
          for module, arrays in draw(0).items() for name, before in arrays.items()}


def test_multipliers_are_of_the_learning_rate_in_their_heads(optimizer):
  expected = dict(projector=.5, predictor=10.)
  for (module, _), factor in factors(optimizer, **expected).items():
    assert factor == pytest.approx(expected.get(module.split('/')[0], 1.), rel=1e-3)


def test_biases_and_norms_have_a_factor_of_their_own(optimizer):
  found = factors(optimizer, biases_and_norms=.25, projector=2.)
  for key, factor in found.items():
    head = 2. if key[0].startswith('projector') else 1.
    assert factor == pytest.approx(head * (1. if key in ADAPTED else .25), rel=1e-3)


def test_the_predictor_keeps_its_rate(optimizer):
  """Where the others have a tenth of the peak, it has the peak; at 0 nothing moves."""
  found = factors(optimizer, [.05], predictor_rate=.5, predictor=2.)
  for (module, _), factor in found.items():
    assert factor == pytest.approx(20. if module.startswith('predictor') else 1., rel=1e-3)
  still = run(with_multipliers(optimizer, predictor_rate=.5), [0.], apply_momentum)
  chex.assert_trees_all_equal(still, draw(0))


def test_multipliers_of_one_change_no_bit_and_no_state(optimizer):
  plain = run(optimizer, RATES, apply_momentum)
  ones = with_multipliers(optimizer, projector=1., predictor=1., biases_and_norms=1.)
  half = with_multipliers(optimizer, predictor=.5)
  chex.assert_trees_all_equal(run(ones, RATES, apply_momentum), plain)
  moved = run(half, RATES, apply_momentum)
  for module in SHAPES:
    if not module.startswith('predictor'):
      chex.assert_trees_all_equal(moved[module], plain[module])
  chex.assert_trees_all_equal(optax.tree.get(half.init(draw(0)), 'trace'),
                              optax.tree.get(optimizer.init(draw(0)), 'trace'))
