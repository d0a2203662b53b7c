"""LARS as BYOL uses it, made of optax parts in the reference's order.

`optax.lars` multiplies by the learning rate before the momentum, this one after
it: the two differ whenever the learning rate changes, in warm-up and cosine decay.
"""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax

Params = Mapping[str, Mapping[str, jax.Array]]


def is_adapted(params: Params) -> Params:
  """True for weights; False for biases and normalisation parameters (`norm` in the module).

  Those that are not adapted get neither weight decay nor trust ratio.
  """
  return {module: {name: name != 'b' and 'norm' not in module for name in values}
          for module, values in params.items()}


def lars(*, weight_decay: float, eta: float, momentum: float,
         multipliers: Mapping[str, float] = MappingProxyType({})) -> optax.GradientTransformation:
  """LARS (You et al. 2017) up to, and without, the learning rate.

  The update of an adapted weight p with gradient g is
    u = g + weight_decay * p
    u = u * eta * |p| / |u|          (the factor is 1 where either norm is 0)
    m = momentum * m + u
  and the step is -learning_rate * m, which the training step applies: its counter
  is the only clock. Norms are of one tensor each, in the dtype of the parameters.

  Args:
    weight_decay: l2 coefficient, added to the gradient.
    eta: trust coefficient.
    momentum: decay of the momentum buffer, in [0, 1).
    multipliers: of the learning rate in the heads, {'predictor': 10.} (Tables 21 and 22), which
      is that of the predictor for small views too; of other modules it is 1. The buffers are
      those without multipliers.
  """
  stages = [
      optax.add_decayed_weights(weight_decay, mask=is_adapted),
      optax.masked(optax.scale_by_trust_ratio(trust_coefficient=eta), is_adapted),
      optax.trace(decay=momentum)]
  if any(factor != 1 for factor in multipliers.values()):
    stages.append(optax.stateless(lambda updates, _: _multiplied(updates, multipliers)))
  return optax.chain(*stages)


def _multiplied(updates: Params, multipliers: Mapping[str, float]) -> Params:
  factors = {module: multipliers.get(module.split('/')[0].removesuffix('_small'), 1.)
             for module in updates}
  return {module: {name: array if factors[module] == 1 else factors[module] * array
                   for name, array in arrays.items()} for module, arrays in updates.items()}


def apply(params: Params, momentum: Params, learning_rate: jax.Array) -> Params:
  """params - learning_rate * momentum, in the dtype of the parameters."""
  return jax.tree.map(lambda p, m: p - jnp.asarray(learning_rate, p.dtype) * m,
                      params, momentum)
