"""Re-ranking by k-reciprocal neighbours.

Z. Zhong, L. Zheng, D. Cao, S. Li: Re-ranking Person Re-identification with k-reciprocal
Encoding, CVPR 2017 (arXiv:1701.08398). Queries and gallery are taken together, N images; d is
the squared Euclidean distance of unit-length embeddings, divided by the largest from the same
image, as the authors' code does.

- R(p), the k1-reciprocal neighbours of p: images among the k1 nearest of p that have p among
  their k1 nearest (equation 2), including p itself. For each q in R(p), the k1/2-reciprocal
  neighbours of q are added if more than two thirds of them are in R(p) (equation 3).
- V_p, a vector [N]: exp(-d(p, g)) for g in R(p), else 0 (equation 7), with sum one; then the
  mean over the k2 nearest of p, including p (equation 11).
- The Jaccard distance of p and g is 1 - sum min(V_p, V_g) / sum max(V_p, V_g) (equation 10),
  and the final one (1 - weight) times it plus weight * d(p, g) (equation 12).

V is sparse, so that memory grows with N and not with N squared; the time is that of N x N
similarities. Every query changes the neighbours of the others: a re-ranked result depends on
the whole set of queries.
"""

from collections.abc import Iterator

import chex
import numpy as np
from scipy import sparse

from byol_jax.errors import InputError
from byol_jax.evaluation import ranking


def scores(queries: np.ndarray, gallery: np.ndarray, *, k1: int, k2: int, weight: float,
           block_bytes: int, most_bytes: int) -> Iterator[tuple[slice, np.ndarray]]:
  """Final distances with their signs changed, some queries at a time.

  Args:
    queries: [Q, D].
    gallery: [G, D].
    k1: number of nearest images that can be reciprocal; 20 in the paper.
    k2: number of nearest images whose vectors are averaged, at most k1 + 1; 6 in the paper.
    weight: weight of the original distance, in [0, 1]; lambda = 0.3 in the paper.
    block_bytes: size of a yielded block in bytes, as in `ranking.similarities`.
    most_bytes: most bytes that neighbours and vectors may take.

  Yields:
    Rows of the queries, and float32 [q, G], higher is nearer, multiples of `ranking.STEP`.

  Raises:
    InputError: neighbours and vectors would take more than `most_bytes`.
  """
  chex.assert_equal_shape_suffix([queries, gallery], 1)
  directions = ranking.unit_length(np.concatenate([queries, gallery]))
  check_size(len(directions), k1, k2, most_bytes)
  nearest, farthest = _neighbours(directions, k1 + 1, block_bytes)
  vectors = _vectors(directions, nearest, farthest, k1)
  if k2 > 1:
    # Each row is the mean of k2 rows, so it has at most as many numbers as they have together.
    numbers = int(np.diff(vectors.indptr)[nearest[:, :k2]].sum())
    _check_bytes(20 * numbers, most_bytes, len(directions), 'vectors')
    vectors = _mean_over(nearest[:, :k2]) @ vectors
  of_gallery = vectors[len(queries):].tocsc()
  for rows, similarity in ranking.similarities(queries, gallery, block_bytes=block_bytes):
    block = np.empty_like(similarity)
    for i, query in enumerate(range(rows.start, rows.stop)):
      distance = (2 - 2 * similarity[i]) / farthest[query]
      block[i] = -((1 - weight) * _jaccard(vectors, query, of_gallery) + weight * distance)
    yield rows, np.round(block / ranking.STEP) * np.float32(ranking.STEP)


def check_size(count: int, k1: int, k2: int, most_bytes: int) -> None:
  """Raises InputError unless `count` images, including the queries, can be re-ranked."""
  if count < k1 + 1:
    raise InputError(f'k1 is {k1}, but there are {count} images including the queries; set k1 to '
                     f'at most {count - 1}.')
  check_memory(count, k1, k2, most_bytes)


def check_memory(count: int, k1: int, k2: int, most_bytes: int) -> None:
  """Raises InputError if re-ranking `count` images certainly takes more than `most_bytes`."""
  _check_bytes(count * (k1 + 1) * 8, most_bytes, count, 'neighbours')
  if k2 > 1:
    # A vector has at least one number.
    _check_bytes(20 * count * k2, most_bytes, count, 'vectors')


def _check_bytes(needed: int, most: int, count: int, what: str) -> None:
  if needed > most:
    raise InputError(f'Re-ranking {count} images would take {needed} bytes for their {what}, more '
                     f'than most_bytes, {most}; raise it if there is enough memory, lower k1 or '
                     'k2, or set rerank=False.')


def _neighbours(directions: np.ndarray, count: int, block_bytes: int
                ) -> tuple[np.ndarray, np.ndarray]:
  """The `count` nearest of each image, int32 [N, count], and the largest distance, [N].

  Of equally near images, the earlier one is taken as nearer.
  """
  nearest = np.empty((len(directions), count), np.int32)
  farthest = np.empty(len(directions), np.float32)
  for rows, similarity in ranking.similarities(directions, directions, block_bytes=block_bytes):
    farthest[rows] = np.maximum(2 - 2 * similarity.min(axis=1), ranking.STEP)
    for row, values in zip(range(rows.start, rows.stop), similarity):
      candidates = np.flatnonzero(values >= np.partition(values, -count)[-count])
      order = np.argsort(-values[candidates], kind='stable')[:count]
      nearest[row] = candidates[order]
  return nearest, farthest


def _vectors(directions, nearest: np.ndarray, farthest: np.ndarray, k1: int) -> sparse.csr_array:
  """V before the mean over neighbours, [N, N]."""
  # Rounds half to even, as in the authors' code.
  reciprocal, half = (_reciprocal(nearest[:, :k + 1]) for k in (k1, round(k1 / 2)))
  columns, values = [], []
  for row, own in enumerate(reciprocal):
    joined = [own] + [half[q] for q in own
                      if 3 * np.isin(half[q], own).sum() > 2 * len(half[q])]
    members = np.unique(np.concatenate(joined))
    distance = (2 - 2 * (directions[members] @ directions[row])) / farthest[row]
    weights = np.exp(-distance)
    columns.append(members)
    values.append(weights / weights.sum())
  ends = np.concatenate([[0], np.cumsum([len(part) for part in columns])])
  shape = (len(nearest), len(nearest))
  return sparse.csr_array((np.concatenate(values), np.concatenate(columns), ends), shape=shape)


def _reciprocal(nearest: np.ndarray) -> list[np.ndarray]:
  """For each image, those of its nearest images that have it among their nearest."""
  own = np.arange(len(nearest))
  return [row[(nearest[row] == i).any(axis=1)] for i, row in zip(own, nearest)]


def _mean_over(nearest: np.ndarray) -> sparse.csr_array:
  """The matrix [N, N] whose product with V is the mean over these neighbours [N, k]."""
  count, k = nearest.shape
  return sparse.csr_array((np.full(count * k, 1 / k, np.float32), nearest.ravel(),
                           np.arange(0, count * k + 1, k)), shape=(count, count))


def _jaccard(vectors: sparse.csr_array, row: int, of_gallery: sparse.csc_array) -> np.ndarray:
  """Jaccard distances of the vector in a row to the vectors of the gallery, [G]."""
  shared = np.zeros(of_gallery.shape[0], np.float32)
  own = slice(vectors.indptr[row], vectors.indptr[row + 1])
  for column, value in zip(vectors.indices[own], vectors.data[own]):
    part = slice(of_gallery.indptr[column], of_gallery.indptr[column + 1])
    shared[of_gallery.indices[part]] += np.minimum(value, of_gallery.data[part])
  # Both vectors sum to one, so the sum of the maxima is two minus the sum of the minima.
  return 1 - shared / (2 - shared)
