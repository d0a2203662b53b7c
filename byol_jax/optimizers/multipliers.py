"""Learning rates of the heads that differ from the encoder's, with any optimizer."""

from collections.abc import Mapping

import jax
import optax

Params = Mapping[str, Mapping[str, jax.Array]]


def with_multipliers(optimizer: optax.GradientTransformation, multipliers: Mapping[str, float]
                     ) -> optax.GradientTransformation:
  """The optimizer with multiples of the learning rate in some modules (Tables 21 and 22).

  Args:
    optimizer: up to, and without, the learning rate. Its buffers are those without multipliers.
    multipliers: {'predictor': 10.}, which holds for the predictor of small views too; of modules
      that are not named it is 1.
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
