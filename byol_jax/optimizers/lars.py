"""LARS as BYOL uses it, built from optax parts in the reference's order.

`optax.lars` multiplies by the learning rate before the momentum, this version after
it. The two differ whenever the learning rate changes, in warm-up and cosine decay.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from byol_jax import ranges

OPTIONS = dict(
    weight_decay=1.5e-6,  # l2 (section 3.3); a number in [0, 100]
    eta=1e-3,  # trust coefficient (appendix J); a number in (0, 1000]
    momentum=0.9,  # (appendix J); a number in [0, 1)
    # Whether no weight gets a larger rate than the learning rate of the schedule, to which the
    # multipliers come afterwards. Recipes with a large eta, such as solo-learn's, mean this form
    # (its `clip_lr`); True or False
    clip=False,
)
RANGES = dict(weight_decay=ranges.DECAY, eta=ranges.number(0, 1000, '(]'),
              momentum=ranges.MOMENTUM, clip=ranges.FLAG)
# Added to the norms of the clipped form, as in solo-learn.
EPSILON = 1e-8

Params = Mapping[str, Mapping[str, jax.Array]]


def is_adapted(params: Params) -> Params:
  """True for weights; False for biases and normalisation parameters (`norm` in the module).

  Parameters that are not adapted get neither weight decay nor a trust ratio.
  """
  return {module: {name: name != 'b' and 'norm' not in module for name in values}
          for module, values in params.items()}


def build(*, weight_decay: float, eta: float, momentum: float, clip: bool = False
          ) -> optax.GradientTransformation:
  """LARS (You et al. 2017) up to but not including the learning rate.

  The update of an adapted weight p with gradient g is
    u = g + weight_decay * p
    u = u * eta * |p| / |u|          (the factor is 1 where either norm is 0)
    m = momentum * m + u
  and the step is -learning_rate * m. The training step applies it, because its counter
  is the only clock. Norms are per tensor, in the dtype of the parameters.

  With `clip` the factor is min(eta * |p| / (learning_rate * (|g| + weight_decay * |p| + 1e-8)), 1),
  and 1 where a norm or the learning rate is 0. It needs the step's learning rate as the extra
  argument `learning_rate` of the transformation's `update`.

  Args:
    weight_decay: l2 coefficient, added to the gradient.
    eta: trust coefficient.
    momentum: decay of the momentum buffer, in [0, 1).
    clip: whether the factor is limited to 1.
  """
  if clip:
    adapt = [optax.masked(_clipped_trust_ratio(weight_decay, eta), is_adapted)]
  else:
    adapt = [optax.add_decayed_weights(weight_decay, mask=is_adapted),
             optax.masked(optax.scale_by_trust_ratio(trust_coefficient=eta), is_adapted)]
  return optax.chain(*adapt, optax.trace(decay=momentum))


def _clipped_trust_ratio(weight_decay: float, eta: float) -> optax.GradientTransformationExtraArgs:
  def update(gradients, state, params, *, learning_rate):
    return jax.tree.map(lambda g, p: _clipped(g, p, weight_decay, eta, learning_rate),
                        gradients, params), state
  return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def _clipped(gradient: jax.Array, weight: jax.Array, weight_decay: float, eta: float,
             learning_rate: jax.Array) -> jax.Array:
  weight_norm, gradient_norm = jnp.linalg.norm(weight.ravel()), jnp.linalg.norm(gradient.ravel())
  rate = learning_rate * (gradient_norm + weight_decay * weight_norm + EPSILON)
  defined = (weight_norm > 0) & (gradient_norm > 0) & (learning_rate > 0)
  factor = jnp.where(defined, jnp.minimum(
      eta * weight_norm / jnp.where(defined, rate, 1.), 1.), 1.)
  return (gradient + weight_decay * weight) * factor.astype(gradient.dtype)
