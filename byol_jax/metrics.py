"""Accuracy and collapse statistics: pure functions of arrays."""

import chex
import jax
import jax.numpy as jnp
import numpy as np


def top_k_correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
  """Whether each label is among the k largest logits: [B, C], [B] -> bool [B]."""
  chex.assert_rank([logits, labels], [2, 1])
  _, best = jax.lax.top_k(logits, k)
  return jnp.any(best == labels[:, None], axis=1)


def moments(vectors: jax.Array) -> dict[str, jax.Array]:
  """First and second moments of [B, D]; they can be averaged over devices.

  Returns:
    `mean` [D], `second` [D, D] (mean outer product) and `norm` [] (mean length)
    of the vectors; the collapse statistics are computed from `second`.
  """
  chex.assert_rank(vectors, 2)
  vectors = jnp.asarray(vectors, jnp.promote_types(vectors.dtype, jnp.float32))
  norm = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
  directions = vectors / jnp.maximum(norm, 1e-12)
  return dict(mean=jnp.mean(directions, axis=0),
              second=jnp.matmul(directions.T, directions, precision='highest') / len(directions),
              norm=jnp.mean(norm))


def collapse_statistics(mean: np.ndarray, second: np.ndarray) -> dict[str, float]:
  """How far the normalised projections are from all being the same.

  Args:
    mean: [D], the mean direction of a batch.
    second: [D, D], the mean outer product of its directions.

  Returns:
    `std`: the standard deviation per dimension times sqrt(D), averaged; about 1
      for directions spread over the whole sphere, 0 when all are the same.
    `effective_rank`: exp of the entropy of the normalised eigenvalues of the
      covariance (Roy & Vetterli 2007); between 1 and min(D, B - 1); 0 when all
      directions are the same up to rounding.
  """
  mean, second = np.asarray(mean, np.float64), np.asarray(second, np.float64)
  covariance = second - np.outer(mean, mean)
  variance = np.clip(np.diag(covariance), 0., None)
  std = float(np.sqrt(variance).mean() * np.sqrt(len(mean)))
  eigenvalues = np.clip(np.linalg.eigvalsh(covariance), 0., None)
  total = eigenvalues.sum()
  # Below this the covariance is float32 rounding of the moments (up to 2e-5
  # observed at D = 256), not spread.
  if total < 1e-4:
    return dict(std=std, effective_rank=0.)
  shares = eigenvalues[eigenvalues > 0] / total
  return dict(std=std, effective_rank=float(np.exp(-np.sum(shares * np.log(shares)))))
