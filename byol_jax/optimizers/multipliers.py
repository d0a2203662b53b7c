"""Separate learning rates for the heads, with any optimizer."""

from collections.abc import Mapping

import jax
import optax

Params = Mapping[str, Mapping[str, jax.Array]]


def with_multipliers(optimizer: optax.GradientTransformation, multipliers: Mapping[str, float]
                     ) -> optax.GradientTransformation:
  """Wraps an optimizer so that some modules get a multiple of the learning rate (Tables 21, 22).

  Args:
    optimizer: up to but not including the learning rate. The multipliers do not change its buffers.
    multipliers: for example {'predictor': 10.}, which also applies to the predictor of small
      views; modules that are not named have 1.
  """
  if all(factor == 1 for factor in multipliers.values()):
    return optimizer
  return optax.chain(optimizer, optax.stateless(
      lambda updates, _: _multiplied(updates, multipliers)))


def _multiplied(updates: Params, multipliers: Mapping[str, float]) -> Params:
  factors = {module: multipliers.get(module.split('/')[0].removesuffix('_small'), 1.)
             for module in updates}
  return {module: {name: array if factors[module] == 1 else factors[module] * array
                   for name, array in arrays.items()} for module, arrays in updates.items()}
