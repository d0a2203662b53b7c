"""Separate learning rates for heads, biases and normalisation parameters, with any optimizer."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from byol_jax.optimizers.lars import is_adapted

Params = Mapping[str, Mapping[str, jax.Array]]


def with_multipliers(optimizer: optax.GradientTransformation, *, biases_and_norms: float = 1.,
                     predictor_rate: float | None = None, **heads: float
                     ) -> optax.GradientTransformation:
  """Wraps an optimizer so that some parameters get a multiple of the learning rate.

  The multipliers do not change the optimizer's buffers. They multiply each other, and those of
  the predictor also apply to the predictor of small views.

  Args:
    optimizer: up to but not including the learning rate.
    biases_and_norms: factor for biases and normalisation parameters of all modules.
    predictor_rate: keeps the predictor's learning rate at this value, before its factor, in
      every step whose learning rate is not 0 (SimSiam, arXiv 2011.10566, section 4.2). None: the
      predictor follows the schedule. Needs the extra argument `learning_rate` of `update`.
    **heads: factors for `projector` and `predictor` (paper, Tables 21, 22).
  """
  factors = [*heads.values(), biases_and_norms]
  if all(factor == 1 for factor in factors) and predictor_rate is None:
    return optimizer

  def update(updates, state, params, *, learning_rate=None, **_):
    of_head = dict(heads)
    if predictor_rate is not None:
      constant = predictor_rate / jnp.where(learning_rate > 0, learning_rate, jnp.inf)
      of_head['predictor'] = heads.get('predictor', 1.) * constant
    weights = is_adapted(params)
    return {module: {name: _times(array, of_head.get(_head(module), 1.),
                                  1. if weights[module][name] else biases_and_norms)
                     for name, array in arrays.items()}
            for module, arrays in updates.items()}, state

  return optax.chain(optimizer, optax.GradientTransformationExtraArgs(
      lambda _: optax.EmptyState(), update))


def _head(module: str) -> str:
  return module.split('/')[0].removesuffix('_small')


def _times(array: jax.Array, *factors: float | jax.Array) -> jax.Array:
  for factor in factors:
    if not (isinstance(factor, float) and factor == 1):
      array = array * jnp.asarray(factor, array.dtype)
  return array
