"""From BYOL to SimCLR: attraction to the other view, and repulsion with weight beta (Eq. 8)."""

import chex
import jax
import jax.numpy as jnp

from byol_jax import ranges
from byol_jax.distributed import parallel
from byol_jax.objectives import byol

# Normalisations of predictions and projections before they are compared (Table 20).
NORMALIZATIONS = ('l2', 'layer_norm', 'batch_norm', 'none')
OPTIONS = dict(
    beta=0.0,  # weight of the repulsion: 0 BYOL, 1 SimCLR (section 5); a number in [0, 1000]
    temperature=0.1,  # alpha (section 5, Table 18); a number in [0.0001, 1000]
    # Normalisation of predictions and projections (section 3.1: 'l2'; Table 20);
    # 'l2', 'layer_norm', 'batch_norm' or 'none'
    normalization='l2',
)
RANGES = dict(beta=ranges.FACTOR, temperature=ranges.SCALE,
              normalization=ranges.OneOf(NORMALIZATIONS))


def loss(online, target, *, beta: float, temperature: float, normalization: str) -> jax.Array:
  """Equation 8 of section 5 and appendix F.4 as a loss, both directions summed, [B].

  For image i of a batch of B, v its view 1 and v' its view 2, Eq. 8 maximises the mean of
    2 S(v_i, v'_i) - 2 alpha beta ln(sum_{j != i} exp(S(v_i, v_j) / alpha)
                                     + sum_j exp(S(v_i, v'_j) / alpha))
  with S(u, w) the cosine of the prediction of u and the target projection of w. One direction of
  this loss is 2 minus that, and as in BYOL the direction from view 2 to view 1 is added to it.
  So the factor is 1 and the constant 4, and with beta 0 it is the loss of `byol`, in [0, 8].
  With beta 1, no predictor and `train.target` 'none' it is SimCLR's: each direction is 2 alpha
  times NT-Xent (Chen et al. 2020, Eq. 1) plus 2, so the mean of NT-Xent over images and
  directions is (loss - 4) / (4 alpha).

  Negatives come from the whole batch, over all devices; with accumulation, only from the
  part of the batch that goes through the networks together.

  Args:
    online: `model.Outputs` of view 1 and of view 2 by the online network.
    target: the same for the target network, or for the online one.
    beta: weight of the repulsion, 0 or more: 0 for BYOL, 1 for SimCLR. The repulsion is computed
      even if beta is 0.
    temperature: alpha, above 0.
    normalization: one of NORMALIZATIONS; for all but 'l2' S(u, w) is 1 - |u - w|^2 / 2, which
      is the cosine of unit vectors, so that the attraction is the squared distance.
  """
  predictions = [_normalized(outputs.prediction, normalization) for outputs in online]
  projections = [_normalized(outputs.projection, normalization) for outputs in target]
  total = 0.
  for own, other in ((0, 1), (1, 0)):
    chex.assert_equal_shape([predictions[own], projections[other]])
    attraction = jnp.sum(jnp.square(predictions[own] - projections[other]), axis=-1)
    repulsion = 2 * temperature * beta * _log_sum(
        predictions[own], projections[own], projections[other], temperature)
    total = total + attraction + repulsion
  return total


def _log_sum(prediction, same_view, other_view, temperature: float) -> jax.Array:
  """ln of the sum over the batch in Eq. 8, [b] for this device's rows [b, P]."""
  same_view, first = parallel.gather_over_devices(same_view)
  other_view, _ = parallel.gather_over_devices(other_view)
  rows = first + jnp.arange(prediction.shape[0])
  itself = rows[:, None] == jnp.arange(same_view.shape[0])
  logits = [_similarities(prediction, projection) / temperature
            for projection in (same_view, other_view)]
  logits[0] = jnp.where(itself, -jnp.inf, logits[0])
  return jax.nn.logsumexp(jnp.concatenate(logits, axis=1), axis=1)


def _similarities(predictions, projections) -> jax.Array:
  """1 - |u - w|^2 / 2 of all pairs, [b, B]."""
  # By default a TPU would round the factors to bfloat16; with alpha = 0.01 that is a factor of e.
  products = jnp.matmul(predictions, projections.T, precision=jax.lax.Precision.HIGHEST)
  squares = [jnp.sum(jnp.square(vectors), axis=-1) for vectors in (predictions, projections)]
  return 1. + products - (squares[0][:, None] + squares[1][None, :]) / 2.


def _normalized(vectors: jax.Array, normalization: str, epsilon: float = 1e-12) -> jax.Array:
  """Normalises the vectors [b, P] without learned parameters (Table 20).

  Layer and batch normalisation also divide by sqrt(P), so that the mean squared length is 1
  as with l2. Batch means and variances are over all devices, and gradients flow through them.
  """
  chex.assert_rank(vectors, 2)
  if normalization == 'none':
    return vectors
  if normalization == 'l2':
    return byol.l2_normalize(vectors)
  if normalization == 'layer_norm':
    mean = lambda x: jnp.mean(x, axis=1, keepdims=True)
  else:
    mean = lambda x: parallel.mean_over_devices(jnp.mean(x, axis=0, keepdims=True))
  centred = vectors - mean(vectors)
  variance = mean(jnp.square(centred))
  return centred * jax.lax.rsqrt(jnp.maximum(variance, epsilon) * vectors.shape[1])
