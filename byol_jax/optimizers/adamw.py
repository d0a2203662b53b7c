"""AdamW (Loshchilov and Hutter 2019), which recipes for transformers use."""

import optax

from byol_jax import ranges
from byol_jax.optimizers.lars import is_adapted

OPTIONS = dict(
    # Decoupled: times the learning rate (ViT in MoCo v3, arXiv 2104.02057); a number in [0, 100]
    weight_decay=0.1,
    beta1=0.9,  # decay of the mean gradient (Kingma and Ba 2015); a number in [0, 1)
    beta2=0.999,  # decay of the mean square (likewise); a number in [0, 1)
    epsilon=1e-8,  # added to the root of the mean square (likewise); a number in [1e-12, 1]
)
RANGES = dict(weight_decay=ranges.DECAY, beta1=ranges.MOMENTUM, beta2=ranges.MOMENTUM,
              epsilon=ranges.number(1e-12, 1))


def build(*, weight_decay: float, beta1: float, beta2: float, epsilon: float
          ) -> optax.GradientTransformation:
  """AdamW up to but not including the learning rate.

  With the bias-corrected means m and v of gradients and of their squares the update of p is
    u = m / (sqrt(v) + epsilon) + weight_decay * p
  and the step is -learning_rate * u.

  Args:
    weight_decay: coefficient for weights; biases and normalisation parameters have none.
    beta1: decay of m, in [0, 1).
    beta2: decay of v, in [0, 1).
    epsilon: added to the root of v.
  """
  return optax.chain(optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon),
                     optax.add_decayed_weights(weight_decay, mask=is_adapted))
