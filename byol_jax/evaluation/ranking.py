"""Ranks a gallery for queries by cosine similarity, and measures how good the ranking is.

For each query the gallery is sorted by descending similarity. As in the re-identification
benchmarks (L. Zheng et al.: Scalable Person Re-identification, ICCV 2015, section 3;
X. Liu et al., ECCV 2016, for vehicles), the query's own image and images of the query's identity
from the query's camera are left out. The remaining images of its identity are its
matches. With p_j the place of the j-th of R matches, counted from 1,

    average precision = mean over j of j / p_j,
    CMC at k = 1 if p_1 <= k else 0,
    recall at k = share of the matches with p_j <= k.

Metric-learning papers call CMC at k "recall@k". mAP and the other metrics are means over the
queries that have matches; queries without matches are counted.

Ties: similarities are rounded to STEP, because smaller differences of float32 products depend on
the order of summation; of equally similar images, wrong images come before the matches. So
the order of the gallery has no effect, and embeddings that are all equal gain nothing. Without
ties, the average precision equals that of scikit-learn and fast-reid, whose figures for the vehicle
benchmarks are commonly used; the Matlab code of Market-1501 takes, at each match, the mean of
j / p_j and the precision one place before.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax.errors import InputError

# Similarities are rounded to this; a power of two, so that rounding is exact.
STEP = 2.0 ** -20
# Number of gallery images on the device at a time.
CHUNK = 16384


class Entries(NamedTuple):
  """What is known about the images of queries or a gallery.

  identity: int [N], equal for images of the same identity.
  camera: int [N], -1 if it is not known.
  image: int [N], equal for the same image.
  """

  identity: np.ndarray
  camera: np.ndarray
  image: np.ndarray


class Ranked(NamedTuple):
  """How the gallery was ranked for each of Q queries.

  matches: int [Q], number of matches in the gallery.
  average_precision: float64 [Q] in (0, 1]; not a number for a query without matches.
  first: int [Q], the place of the first match, from 1; 0 without matches.
  recall: float64 [Q, K], at each of K depths; not a number without matches.
  nearest: int [Q, L], the first L rows of the ranked gallery; -1 where there are fewer.
  right: bool [Q, L], which of these rows are matches.
  score: float32 [Q, L], similarities of these rows.
  """

  matches: np.ndarray
  average_precision: np.ndarray
  first: np.ndarray
  recall: np.ndarray
  nearest: np.ndarray
  right: np.ndarray
  score: np.ndarray


class Result(NamedTuple):
  """What `evaluate` found, for the code that writes it to files.

  ranked: rankings of Q queries.
  query: int [Q], ids of the queries in the test split.
  gallery: int [G], ids of the gallery in its split.
  split: split of the gallery: 'train' or 'test'.
  identity: int [Q], labels of the queries.
  gallery_identity: int [G], labels of the gallery.
  pictured: number of queries of each kind to draw.
  """

  ranked: Ranked
  query: np.ndarray
  gallery: np.ndarray
  split: str
  identity: np.ndarray
  gallery_identity: np.ndarray
  pictured: int


class Whitening(NamedTuple):
  """mean: [D], of the unit-length embeddings; matrix: [D, d]."""

  mean: np.ndarray
  matrix: np.ndarray


def similarities(queries: np.ndarray, gallery: np.ndarray, *, block_bytes: int
                 ) -> Iterator[tuple[slice, np.ndarray]]:
  """Cosine similarities, some queries at a time.

  Args:
    queries: [Q, D].
    gallery: [G, D], of which the device holds CHUNK rows at a time.
    block_bytes: size of a yielded block in bytes; determines its number of queries, at least one.

  Yields:
    Rows of the queries, and their similarities float32 [q, G], multiples of STEP.
  """
  chex.assert_equal_shape_suffix([queries, gallery], 1)
  count = int(np.clip(block_bytes // (4 * len(gallery)), 1, len(queries)))
  width = min(CHUNK, len(gallery))
  for start in range(0, len(queries), count):
    rows = slice(start, min(start + count, len(queries)))
    own = jnp.asarray(_filled(queries[rows], count))
    block = np.empty((rows.stop - start, len(gallery)), np.float32)
    for left in range(0, len(gallery), width):
      # All parts have the same shape, so that only one program is compiled.
      part = _filled(gallery[left:left + width], width)
      found = np.asarray(_cosine(own, part))
      block[:, left:left + width] = found[:len(block), :len(gallery) - left]
    yield rows, block


def matches(queries: Entries, gallery: Entries) -> np.ndarray:
  """The number of gallery images that are matches for each query, int [Q]."""
  order = np.argsort(gallery.identity, kind='stable')
  ends = [np.searchsorted(gallery.identity[order], queries.identity, side)
          for side in ('left', 'right')]
  found = np.zeros(len(queries.identity), int)
  for row, (start, end, camera, image) in enumerate(zip(*ends, queries.camera, queries.image)):
    same = order[start:end]
    left_out = gallery.image[same] == image
    if camera >= 0:
      left_out |= gallery.camera[same] == camera
    found[row] = np.sum(~left_out)
  return found


def rank(scores: np.ndarray, queries: Entries, gallery: Entries, *, depth: int,
         recall_at: Sequence[int]) -> Ranked:
  """Ranks the gallery for each query and measures the ranking.

  Args:
    scores: float [Q, G], higher is nearer; computed from rounded similarities.
    queries: entries of Q images.
    gallery: entries of G images.
    depth: L, the number of first images to keep.
    recall_at: K depths, each at least 1.
  """
  chex.assert_shape(scores, (len(queries.identity), len(gallery.identity)))
  rows = [_rank(row, *query, gallery, depth, np.asarray(recall_at))
          for row, query in zip(scores, zip(*queries))]
  return Ranked(*map(np.stack, zip(*rows)))


def together(parts: Sequence[Ranked]) -> Ranked:
  """Concatenates the queries of the parts."""
  return Ranked(*map(np.concatenate, zip(*parts)))


def metrics(ranked: Ranked, *, cmc_at: Sequence[int], recall_at: Sequence[int]
            ) -> dict[str, float]:
  """Means over the queries that have matches, in [0, 1]: 'map', 'rank1', ..., 'recall_10', ...

  Raises:
    InputError: no query has a match.
  """
  counted = ranked.matches > 0
  if not counted.any():
    raise InputError(f'None of the {len(counted)} queries has a match in the gallery: a match '
                     'is another image of its identity, from another camera if cameras are known. '
                     'Check the identities and cameras.')
  found = dict(map=float(np.mean(ranked.average_precision[counted])))
  found |= {f'rank{k}': float(np.mean(ranked.first[counted] <= k)) for k in cmc_at}
  return found | {f'recall_{k}': float(np.mean(values))
                  for k, values in zip(recall_at, ranked.recall[counted].T)}


def fit_whitening(embeddings: np.ndarray, dimensions: int) -> Whitening:
  """PCA-whitening of unit-length embeddings (Jegou and Chum 2012, arXiv:1206.4735, section 3).

  The components of largest variance, each divided by its standard deviation.

  Args:
    embeddings: [N, D].
    dimensions: d, number of components to keep.

  Raises:
    InputError: the embeddings do not vary in that many directions.
  """
  directions = unit_length(embeddings)
  mean = directions.mean(axis=0, dtype=np.float64)
  covariance = np.zeros((len(mean), len(mean)))
  for start in range(0, len(directions), CHUNK):
    centred = directions[start:start + CHUNK] - mean
    covariance += centred.T @ centred
  variances, axes = np.linalg.eigh(covariance / len(directions))
  # Variances of float32 embeddings are not known more precisely.
  rank = int(np.sum(variances > variances[-1] * 1e-7)) if variances[-1] > 1e-12 else 0
  if not 1 <= dimensions <= rank:
    raise InputError(f'whitening is {dimensions}, but the {len(embeddings)} embeddings of '
                     f'{len(mean)} dimensions vary in only {rank} directions; set it to at most '
                     'that, or to 0 for no whitening.')
  kept = slice(-1, -dimensions - 1, -1)
  return Whitening(mean.astype(np.float32),
                   (axes[:, kept] / np.sqrt(variances[kept])).astype(np.float32))


def whiten(whitening: Whitening, embeddings: np.ndarray) -> np.ndarray:
  """Embeddings [N, D] -> float32 [N, d]."""
  parts = [(unit_length(embeddings[start:start + CHUNK]) - whitening.mean) @ whitening.matrix
           for start in range(0, len(embeddings), CHUNK)]
  return np.concatenate(parts)


def unit_length(embeddings: np.ndarray) -> np.ndarray:
  """Scales embeddings to length one, float32 [N, D]; zeros stay zero."""
  embeddings = np.asarray(embeddings, np.float32)
  norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
  return embeddings / np.maximum(norm, np.finfo(np.float32).tiny)


def _filled(array: np.ndarray, count: int) -> np.ndarray:
  """Appends rows of zeros to the array, up to `count` rows in total."""
  if len(array) == count:
    return array
  return np.concatenate([array, np.zeros((count - len(array), *array.shape[1:]), array.dtype)])


@jax.jit
def _cosine(queries: chex.Array, gallery: chex.Array) -> chex.Array:
  def directions(embeddings):
    norm = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)

  # The default precision of an accelerator is about three digits.
  similarity = jnp.matmul(directions(queries), directions(gallery).T, precision='highest')
  return jnp.round(similarity / STEP) * STEP


def _rank(scores, identity, camera, image, gallery: Entries, depth: int, recall_at):
  """The fields of `Ranked` for one query."""
  same = gallery.identity == identity
  left_out = gallery.image == image
  if camera >= 0:
    left_out |= same & (gallery.camera == camera)
  right = same & ~left_out
  found = np.sort(scores[right])[::-1]
  count = len(found)
  shown = _first(scores, left_out, right, gallery.image, depth)
  if not count:
    return (0, np.nan, 0, np.full(len(recall_at), np.nan), *shown)
  wrong = np.sort(scores[~(same | left_out)])
  # Equally similar wrong images come before the match.
  before = len(wrong) - np.searchsorted(wrong, found, 'left')
  number = np.arange(1, count + 1)
  place = number + before
  recall = np.sum(place[:, None] <= recall_at, axis=0) / count
  return (count, np.mean(number / place), place[0], recall, *shown)


def _first(scores, left_out, right, image, depth: int):
  """The first `depth` rows of the ranking, which of them are matches, and their scores."""
  kept = np.flatnonzero(~left_out)
  rows = kept
  if depth < len(kept):
    values = scores[kept]
    rows = kept[values >= np.partition(values, -depth)[-depth]]
  rows = rows[np.lexsort((image[rows], right[rows], -scores[rows]))[:depth]]
  missing = depth - len(rows)
  return (np.pad(rows, (0, missing), constant_values=-1),
          np.pad(right[rows], (0, missing)), np.pad(scores[rows], (0, missing)))
