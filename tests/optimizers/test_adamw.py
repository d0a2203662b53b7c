import chex
import jax
import numpy as np
import optax

from byol_jax.optimizers import adamw
from byol_jax.train_step import apply_momentum
from tests.optimizers.steps import ADAPTED, SHAPES, draw, run

OPTIONS = dict(weight_decay=.1, beta1=.8, beta2=.95, epsilon=1e-3)
RATES = [0., .3, .6, .1]


def expected():
  """Kingma and Ba's moments with bias correction and decoupled decay, in float64."""
  params = {(m, n): v.astype(np.float64) for m, vs in draw(0).items() for n, v in vs.items()}
  mean, square = ({key: 0. for key in params} for _ in range(2))
  for i, rate in enumerate(RATES):
    for (module, name), p in params.items():
      key, g = (module, name), draw(i + 1)[module][name].astype(np.float64)
      mean[key] = .8 * mean[key] + .2 * g
      square[key] = .95 * square[key] + .05 * g * g
      corrected = mean[key] / (1 - .8 ** (i + 1)), square[key] / (1 - .95 ** (i + 1))
      update = corrected[0] / (np.sqrt(corrected[1]) + 1e-3)
      params[key] = p - rate * (update + .1 * p * (key in ADAPTED))
  return {module: {name: params[module, name] for name in names}
          for module, names in SHAPES.items()}


def test_several_steps_against_numpy():
  actual = run(adamw.build(**OPTIONS), RATES, apply_momentum)
  chex.assert_trees_all_close(actual, expected(), rtol=1e-4, atol=1e-5)


def test_equals_optax_adamw_while_the_learning_rate_is_constant():
  theirs = optax.adamw(.3, b1=.8, b2=.95, eps=1e-3, weight_decay=.1, mask=lambda params: {
      module: {name: (module, name) in ADAPTED for name in values}
      for module, values in params.items()})
  chex.assert_trees_all_close(
      run(adamw.build(**OPTIONS), [.3] * 4, apply_momentum),
      run(theirs, [.3] * 4, lambda params, updates, _: optax.apply_updates(params, updates)),
      rtol=1e-5, atol=1e-6)


def test_its_count_is_the_number_of_steps():
  optimizer, params = adamw.build(**OPTIONS), draw(0)
  state = optimizer.init(params)
  for step in range(3):
    assert optax.tree.get(state, 'count') == step
    _, state = jax.jit(optimizer.update)(draw(1), state, params)
