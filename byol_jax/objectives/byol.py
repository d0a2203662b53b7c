"""BYOL's objective: predict the target's projection of the other view."""

import chex
import jax
import jax.numpy as jnp

OPTIONS = {}
RANGES = {}


def l2_normalize(vectors: jax.Array, epsilon: float = 1e-12) -> jax.Array:
  """v / |v| along the last axis [..., D]; a zero vector stays zero.

  `epsilon` bounds the squared norm from below, as in the reference.
  """
  squared_norm = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.maximum(squared_norm, epsilon))


def regression_loss(prediction: jax.Array, target_projection: jax.Array) -> jax.Array:
  """Squared distance of the normalised vectors [B, D] -> [B] in [0, 4] (paper, eq. 2)."""
  chex.assert_rank(prediction, 2)
  chex.assert_equal_shape([prediction, target_projection])
  difference = l2_normalize(prediction) - l2_normalize(target_projection)
  return jnp.sum(jnp.square(difference), axis=-1)


def loss(online, target) -> jax.Array:
  """The sum (not the mean) of both directions, [B] in [0, 8] (paper, section 3.1).

  Args:
    online: `model.Outputs` of view 1 and of view 2 by the online network.
    target: the same for the target network; the caller stops its gradient.
  """
  return (regression_loss(online[0].prediction, target[1].projection)
          + regression_loss(online[1].prediction, target[0].projection))
