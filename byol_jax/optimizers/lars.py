"""LARS as BYOL uses it, built from optax parts in the reference's order.

`optax.lars` multiplies by the learning rate before the momentum, this version after
it. The two differ whenever the learning rate changes, in warm-up and cosine decay.
"""

from collections.abc import Mapping

import jax
import optax

from byol_jax import ranges

OPTIONS = dict(
    weight_decay=1.5e-6,  # l2 (section 3.3); a number in [0, 100]
    eta=1e-3,  # trust coefficient (appendix J); a number in (0, 1000]
    momentum=0.9,  # (appendix J); a number in [0, 1)
)
RANGES = dict(weight_decay=ranges.DECAY, eta=ranges.number(0, 1000, '(]'),
              momentum=ranges.MOMENTUM)

Params = Mapping[str, Mapping[str, jax.Array]]


def is_adapted(params: Params) -> Params:
  """True for weights; False for biases and normalisation parameters (`norm` in the module).

  Parameters that are not adapted get neither weight decay nor a trust ratio.
  """
  return {module: {name: name != 'b' and 'norm' not in module for name in values}
          for module, values in params.items()}


def build(*, weight_decay: float, eta: float, momentum: float) -> optax.GradientTransformation:
  """LARS (You et al. 2017) up to but not including the learning rate.

  The update of an adapted weight p with gradient g is
    u = g + weight_decay * p
    u = u * eta * |p| / |u|          (the factor is 1 where either norm is 0)
    m = momentum * m + u
  and the step is -learning_rate * m. The training step applies it, because its counter
  is the only clock. Norms are per tensor, in the dtype of the parameters.

  Args:
    weight_decay: l2 coefficient, added to the gradient.
    eta: trust coefficient.
    momentum: decay of the momentum buffer, in [0, 1).
  """
  return optax.chain(
      optax.add_decayed_weights(weight_decay, mask=is_adapted),
      optax.masked(optax.scale_by_trust_ratio(trust_coefficient=eta), is_adapted),
      optax.trace(decay=momentum))
