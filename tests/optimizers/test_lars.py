import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.optimizers import lars
from byol_jax.optimizers.multipliers import with_multipliers
from byol_jax.train_step import apply_momentum

OPTIONS = dict(weight_decay=.1, eta=.02, momentum=.9)
SHAPES = {
    'res_net50/~/initial_conv': dict(w=(3, 3, 3, 4)),
    'res_net50/~/initial_batchnorm': dict(scale=(4,), offset=(4,)),
    'projector/linear': dict(w=(4, 5), b=(5,)),
    'projector/batch_norm': dict(scale=(5,), offset=(5,)),
    'projector/linear_1': dict(w=(5, 2)),
    'predictor/batch_norm_1': dict(scale=(2,), offset=(2,)),
    'classifier': dict(w=(4, 3), b=(3,)),
}
ADAPTED = {('res_net50/~/initial_conv', 'w'), ('projector/linear', 'w'),
           ('projector/linear_1', 'w'), ('classifier', 'w')}


def draw(seed):
  random = np.random.default_rng(seed)
  return {module: {name: random.normal(size=shape).astype(np.float32)
                   for name, shape in shapes.items()} for module, shapes in SHAPES.items()}


def run(optimizer, learning_rates, apply):
  params = draw(0)
  opt_state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for i, learning_rate in enumerate(learning_rates):
    updates, opt_state = update(draw(i + 1), opt_state, params)
    params = apply(params, updates, learning_rate)
  return params


def reference(learning_rates):
  """The update of the docstring in NumPy, float64."""
  params = {(m, n): v.astype(np.float64) for m, vs in draw(0).items() for n, v in vs.items()}
  momentum = {key: 0. for key in params}
  for i, learning_rate in enumerate(learning_rates):
    for (module, name), p in params.items():
      u = draw(i + 1)[module][name].astype(np.float64)
      if (module, name) in ADAPTED:
        u = u + OPTIONS['weight_decay'] * p
        u = u * OPTIONS['eta'] * np.linalg.norm(p) / np.linalg.norm(u)
      momentum[module, name] = OPTIONS['momentum'] * momentum[module, name] + u
      params[module, name] = p - learning_rate * momentum[module, name]
  return {module: {name: params[module, name] for name in names}
          for module, names in SHAPES.items()}


def optax_lars(learning_rate):
  return optax.lars(
      learning_rate, weight_decay=OPTIONS['weight_decay'], momentum=OPTIONS['momentum'],
      trust_coefficient=OPTIONS['eta'], weight_decay_mask=lars.is_adapted,
      trust_ratio_mask=lars.is_adapted)


def test_weights_are_adapted_and_biases_and_norms_are_not():
  mask = lars.is_adapted(draw(0))
  chex.assert_trees_all_equal_structs(mask, draw(0))
  assert {(m, n) for m, values in mask.items() for n, value in values.items() if value} == ADAPTED


@pytest.mark.parametrize('learning_rates', [[.5] * 5, [0., .3, .6, .4, .1]],
                         ids=['constant', 'changing'])
def test_several_steps_against_numpy(learning_rates):
  actual = run(lars.build(**OPTIONS), learning_rates, apply_momentum)
  chex.assert_trees_all_close(actual, reference(learning_rates), rtol=1e-4, atol=1e-5)


def test_equals_optax_lars_while_the_learning_rate_is_constant():
  rates = [.5] * 5
  theirs = run(optax_lars(.5), rates, lambda params, updates, _: optax.apply_updates(
      params, updates))
  ours = run(lars.build(**OPTIONS), rates, apply_momentum)
  chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_differs_from_optax_lars_once_the_learning_rate_changes():
  rates = [.5, .5, .1]
  theirs = run(optax_lars(lambda step: jnp.asarray(rates)[step]), rates,
               lambda params, updates, _: optax.apply_updates(params, updates))
  ours = run(lars.build(**OPTIONS), rates, apply_momentum)
  difference = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), ours, theirs)
  assert min(jax.tree.leaves(difference)) > 1e-3


@pytest.mark.parametrize('weight, gradient', [
    ([0., 0.], [3., -4.]), ([1., 2.], [0., 0.]), ([0., 0.], [0., 0.])])
def test_the_trust_ratio_is_one_where_a_norm_is_zero(weight, gradient):
  optimizer = lars.build(weight_decay=0., eta=1e-3, momentum=.9)
  params, gradients = ({'linear': {'w': jnp.array(value)}} for value in (weight, gradient))
  momentum, _ = optimizer.update(gradients, optimizer.init(params), params)
  np.testing.assert_array_equal(momentum['linear']['w'], gradient)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_apply_subtracts_in_the_dtype_of_the_parameters(dtype):
  params = {'linear': {'w': jnp.array([1., -2.], dtype)}}
  momentum = {'linear': {'w': jnp.array([4., 8.], dtype)}}
  updated = apply_momentum(params, momentum, jnp.float32(.25))['linear']['w']
  assert updated.dtype == dtype
  np.testing.assert_array_equal(updated, [0., -4.])


def test_multipliers_are_of_the_learning_rate_in_their_heads():
  rates, factors = [.5, .3, .4], dict(projector=.5, predictor=10.)
  once = run(lars.build(**OPTIONS), rates[:1], apply_momentum)
  often = run(with_multipliers(lars.build(**OPTIONS), factors), rates[:1], apply_momentum)
  for module, arrays in draw(0).items():
    for name, before in arrays.items():
      np.testing.assert_allclose(
          often[module][name] - before,
          factors.get(module.split('/')[0], 1.) * (once[module][name] - before), rtol=1e-4,
          atol=1e-5)


def test_multipliers_of_one_change_no_bit_and_no_state():
  rates = [.5, .3, .4]
  plain = run(lars.build(**OPTIONS), rates, apply_momentum)
  ones = run(with_multipliers(lars.build(**OPTIONS), dict(projector=1., predictor=1.)), rates,
             apply_momentum)
  half = run(with_multipliers(lars.build(**OPTIONS), dict(predictor=.5)), rates, apply_momentum)
  chex.assert_trees_all_equal(ones, plain)
  for module in SHAPES:
    if not module.startswith('predictor'):
      chex.assert_trees_all_equal(half[module], plain[module])
  optimizer = with_multipliers(lars.build(**OPTIONS), dict(predictor=.5))
  chex.assert_trees_all_equal(optax.tree.get(optimizer.init(draw(0)), 'trace'),
                              optax.tree.get(lars.build(**OPTIONS).init(draw(0)), 'trace'))
