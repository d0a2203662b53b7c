"""Stochastic gradient descent with momentum, for recipes of small data sets."""

import optax

from byol_jax import ranges
from byol_jax.optimizers.lars import is_adapted

OPTIONS = dict(
    weight_decay=1e-4,  # l2 (SimSiam, arXiv 2011.10566, section 3); a number in [0, 100]
    momentum=0.9,  # (likewise); a number in [0, 1)
)
RANGES = dict(weight_decay=ranges.DECAY, momentum=ranges.MOMENTUM)


def build(*, weight_decay: float, momentum: float) -> optax.GradientTransformation:
  """SGD up to but not including the learning rate: m = momentum * m + g + weight_decay * p.

  Args:
    weight_decay: l2 coefficient of weights; biases and normalisation parameters have none.
    momentum: decay of the momentum buffer, in [0, 1).
  """
  return optax.chain(optax.add_decayed_weights(weight_decay, mask=is_adapted),
                     optax.trace(decay=momentum))
