"""Accuracy, collapse statistics and spectra: pure functions of arrays."""

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
  rank = effective_rank(eigenvalues) if total >= 1e-4 else 0.
  return dict(std=std, effective_rank=rank)


def effective_rank(values: np.ndarray) -> float:
  """exp of the entropy of values [D] >= 0, as shares of their sum; 0 if all are 0."""
  total = values.sum()
  if not total > 0:
    return 0.
  shares = values[values > 0] / total
  return float(np.exp(-np.sum(shares * np.log(shares))))


def spectrum(embeddings: np.ndarray) -> np.ndarray:
  """The eigenvalues of the covariance of embeddings [N, D], descending, as shares of their sum.

  Returns:
    float64 [min(N, D)]; zeros if all embeddings are the same up to the rounding of float32.
  """
  centred = np.asarray(embeddings, np.float64)
  size = np.abs(centred).max()
  centred = centred - centred.mean(axis=0)
  if not np.abs(centred).max() > 1e-6 * size:
    return np.zeros(min(centred.shape))
  eigenvalues = _squared_singular_values(centred)
  return eigenvalues / eigenvalues.sum()


def embedding_scores(embeddings: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
  """What a run logs of held-out embeddings [N, D]: three numbers and the `spectrum`.

  `effective_rank` is that of the spectrum, `largest_share` its first value.
  """
  shares = spectrum(embeddings)
  return dict(effective_rank=effective_rank(shares), rankme=rankme(embeddings),
              largest_share=float(shares[0])), shares


def rankme(embeddings: np.ndarray) -> float:
  """RankMe of embeddings [N, D] (Garrido et al. 2023, Eq. 1; arXiv 2210.02885).

  exp of the entropy of the singular values of the matrix, which is not centred. It needs no
  labels, lies in [0, min(N, D)] and has been found to follow the quality of an encoder.
  """
  return effective_rank(np.sqrt(_squared_singular_values(np.asarray(embeddings, np.float64))))


def _squared_singular_values(matrix: np.ndarray) -> np.ndarray:
  """Of [N, D], descending, [min(N, D)]; from the smaller of the two products with itself."""
  product = matrix.T @ matrix if len(matrix) >= matrix.shape[1] else matrix @ matrix.T
  return np.clip(np.linalg.eigvalsh(product)[::-1], 0., None)
