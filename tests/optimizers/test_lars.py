import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax.optimizers import lars
from byol_jax.train_step import apply_momentum
from tests.optimizers.steps import ADAPTED, draw, numpy_run, run

OPTIONS = dict(weight_decay=.1, eta=.02, momentum=.9)
def reference(learning_rates, clip=False):
  """The update of the docstring in NumPy, float64."""
  def of(p, g, m, learning_rate, is_weight):
    if is_weight:
      u, norm = g + OPTIONS['weight_decay'] * p, np.linalg.norm
      if clip:
        rate = learning_rate * (norm(g) + OPTIONS['weight_decay'] * norm(p) + 1e-8)
        g = u * (min(OPTIONS['eta'] * norm(p) / rate, 1.) if rate else 1.)
      else:
        g = u * OPTIONS['eta'] * norm(p) / norm(u)
    return OPTIONS['momentum'] * m + g
  return numpy_run(of, learning_rates)


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


@pytest.mark.parametrize('rates', [[.5] * 5, [0., .003, .06, .4, .1]], ids=['constant', 'changing'])
def test_the_clipped_form_against_numpy(rates):
  actual = run(lars.build(**OPTIONS, clip=True), rates, apply_momentum)
  chex.assert_trees_all_close(actual, reference(rates, clip=True), rtol=1e-4, atol=1e-5)


def test_the_clipped_form_is_sgd_where_the_rate_would_be_larger_than_the_learning_rate():
  """With a large eta every factor is 1; with a small one, it is that of LARS without the clip."""
  rates = [.5, .3]
  sgd = run(optax.chain(optax.add_decayed_weights(.1, mask=lars.is_adapted), optax.trace(.9)),
            rates, apply_momentum)
  large = run(lars.build(**OPTIONS | dict(eta=1e3), clip=True), rates, apply_momentum)
  chex.assert_trees_all_close(large, sgd, rtol=1e-6)
  gradients, params = draw(1), draw(0)
  one, half = (lars.build(weight_decay=0., eta=1e-4, momentum=0., clip=True).update(
      gradients, (optax.MaskedState(optax.EmptyState()), optax.TraceState(
          jax.tree.map(jnp.zeros_like, params))), params, learning_rate=rate)[0]
               for rate in (1., .5))
  for module, name in ADAPTED:
    # A layer moves by eta of its norm whatever the learning rate is.
    np.testing.assert_allclose(one[module][name], .5 * half[module][name], rtol=1e-5)


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


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('weight, gradient', [
    ([0., 0.], [3., -4.]), ([1., 2.], [0., 0.]), ([0., 0.], [0., 0.])])
def test_the_trust_ratio_is_one_where_a_norm_is_zero(weight, gradient, clip):
  optimizer = lars.build(weight_decay=0., eta=1e-3, momentum=.9, clip=clip)
  params, gradients = ({'linear': {'w': jnp.array(value)}} for value in (weight, gradient))
  momentum, _ = optax.with_extra_args_support(optimizer).update(
      gradients, optimizer.init(params), params, learning_rate=.5)
  np.testing.assert_array_equal(momentum['linear']['w'], gradient)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_apply_subtracts_in_the_dtype_of_the_parameters(dtype):
  params = {'linear': {'w': jnp.array([1., -2.], dtype)}}
  momentum = {'linear': {'w': jnp.array([4., 8.], dtype)}}
  updated = apply_momentum(params, momentum, jnp.float32(.25))['linear']['w']
  assert updated.dtype == dtype
  np.testing.assert_array_equal(updated, [0., -4.])
