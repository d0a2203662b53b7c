"""Weighted k nearest neighbours by cosine similarity.

Z. Wu, Y. Xiong, S. X. Yu, D. Lin: Unsupervised Feature Learning via
Non-Parametric Instance Discrimination, CVPR 2018 (arXiv:1805.01978), section
3.4. Embeddings are l2-normalised, s_i = <v_i, f> is the similarity of training
image i to the query f, N_k are the k most similar training images, and class c
gets the votes

    w_c = sum over i in N_k of exp(s_i / temperature) * [label of i is c].

The paper uses k = 200 and temperature = 0.07.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import ranges
from byol_jax.errors import InputError
from byol_jax.evaluation.contract import EvalContext, Facts, Features, FitContext, check_features
from byol_jax.evaluation.scoring import ACCURACY, accuracy, label_ranks

TITLE, METRICS, MAIN_METRIC = 'kNN', ACCURACY, 'top1'
OPTIONS = dict(
    # Neighbours, at most the number of training images; a whole number of 1 or more
    k=200,
    temperature=0.07,  # of their votes; a number above 0
)
RANGES = dict(k=ranges.whole(1), temperature=ranges.POSITIVE, query_chunk=ranges.whole(1),
              bank_chunk=ranges.whole(1))
PROTOCOL = (
    'k nearest neighbours among the training images by cosine similarity, votes weighted by '
    'exp(similarity / temperature) (Wu et al. 2018). k and temperature are given, nothing is '
    'chosen: the validation images are neither voters nor used to choose.')


class Fitted(NamedTuple):
  """The bank of labelled training images and the options of `fit`."""

  train: Features
  validation_images: int
  num_classes: int
  k: int
  temperature: float
  query_chunk: int
  bank_chunk: int


class Nearest(NamedTuple):
  """The k nearest images of the bank so far, by descending similarity, for each query.

  similarity: float32 [Q, k], -inf as long as fewer than k images have been seen.
  labels: int32 [Q, k].
  """

  similarity: chex.Array
  labels: chex.Array


def fit(context: FitContext, *, k: int, temperature: float, query_chunk: int = 1024,
        bank_chunk: int = 16384) -> Fitted:
  """Keeps the training images as the bank of neighbours.

  Args:
    context: labelled features float32 [N, D] of the training images, which are the bank. Held-out
      images are only counted; there is nothing to choose.
    k: number of neighbours that vote, 1 ... N.
    temperature: temperature of the votes, > 0.
    query_chunk: number of queries on the device at a time.
    bank_chunk: number of training images on the device at a time; the device has
      query_chunk * (k + bank_chunk) similarities and two chunks of embeddings.

  Raises:
    InputError: there are fewer training images than neighbours, or unusable training features.
  """
  train = context.features('train')
  check_features('train', train, context.num_classes)
  _check_count(k, len(train.embeddings))
  return Fitted(train, len(context.features('validation').embeddings), context.num_classes, k,
                temperature, query_chunk, bank_chunk)


def check(facts: Facts, *, k: int, **_) -> None:
  """Raises InputError if there are fewer training images than neighbours."""
  _check_count(k, facts.train.images)


def _check_count(k: int, images: int) -> None:
  if not 1 <= k <= images:
    raise InputError(f'knn.k is {k} but there are {images} training images; set k to 1 ... '
                     f'{images}, or give more images.')


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """Accuracy of the neighbours' votes on the test images.

  Ties are always broken in the same way: of equally similar training images,
  the one with the lower id is the neighbour; of classes with equal votes, the lower
  class is ranked first. Classes without votes rank after all classes with votes.

  Args:
    fitted: the result of `fit`.
    context: labelled features float32 [M, D] of the test images, which are the queries.

  Returns:
    Fractions in [0, 1] under 'top1' and, for more than five classes, 'top5'.

  Raises:
    InputError: the test features are unusable.
  """
  return evaluate_all([fitted], context.features('test'))[0]


def evaluate_all(fitted: Sequence[Fitted], queries: Features) -> list[dict[str, float]]:
  """`evaluate` on any queries, for several k and temperatures of one bank, with one search."""
  widest = max(fitted, key=lambda one: one.k)
  check_features('test', queries, widest.num_classes)
  chex.assert_equal_shape_suffix([widest.train.embeddings, queries.embeddings], 1)
  labels = np.array_split(queries.labels, range(widest.query_chunk, len(queries.labels),
                                                widest.query_chunk))
  searched = _search(widest, queries)

  def ranks(one: Fitted) -> np.ndarray:
    return np.concatenate([
        label_ranks(_votes(nearest, one.k, one.temperature, one.num_classes)[:len(label)], label)
        for nearest, label in zip(searched, labels, strict=True)])

  return [accuracy(ranks(one), one.num_classes) for one in fitted]


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, its options and the numbers of images."""
  return dict(
      protocol=PROTOCOL, k=fitted.k, temperature=fitted.temperature,
      num_classes=fitted.num_classes, train_images=len(fitted.train.embeddings),
      validation_images=fitted.validation_images)


def _search(fitted: Fitted, test: Features) -> list[Nearest]:
  """The k nearest training images of each chunk of queries."""
  queries = list(_chunks(np.arange(len(test.embeddings)), fitted.query_chunk))
  shape = (len(queries[0][0]), fitted.k)
  nearest = [Nearest(jnp.full(shape, -jnp.inf), jnp.zeros(shape, jnp.int32))] * len(queries)
  # `lax.top_k` keeps the first of equal values; sorted by id, this is the lower id.
  by_id = np.argsort(fitted.train.sample_id, kind='stable')
  # The large bank is copied to the device once, the small set of queries many times.
  for index, real in _chunks(by_id, fitted.bank_chunk):
    bank = _unit_length(fitted.train.embeddings[index])
    bank_labels = jnp.where(real, fitted.train.labels[index], -1)
    nearest = [_merge(best, _unit_length(test.embeddings[query]), bank, bank_labels)
               for best, (query, _) in zip(nearest, queries, strict=True)]
    # Without this the host runs ahead and queues the whole bank on the device.
    jax.block_until_ready(nearest)
  return nearest


def _chunks(index: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Pieces of `index` [n], all of size min(size, n), and which entries are not padding."""
  size = min(size, len(index))
  for start in range(0, len(index), size):
    position = np.arange(start, start + size)
    yield index[np.minimum(position, len(index) - 1)], position < len(index)


@jax.jit
def _unit_length(embeddings: chex.Array) -> chex.Array:
  norm = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
  return embeddings / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)


@jax.jit
def _merge(best: Nearest, queries: chex.Array, bank: chex.Array, labels: chex.Array) -> Nearest:
  """Updates `best` [Q, k] with the images of bank [B, D]; a label of -1 marks padding."""
  k = best.similarity.shape[1]
  chex.assert_shape([queries, bank], [(best.labels.shape[0], None), (labels.shape[0], None)])
  # The default precision of an accelerator is about three digits, which would
  # swap neighbours.
  similarity = jnp.matmul(queries, bank.T, precision='highest')
  similarity = jnp.where(labels >= 0, similarity, -jnp.inf)
  similarity, position = jax.lax.top_k(
      jnp.concatenate([best.similarity, similarity], axis=1), k)
  kept = jnp.take_along_axis(best.labels, jnp.minimum(position, k - 1), axis=1)
  return Nearest(similarity, jnp.where(position < k, kept, labels[jnp.maximum(position - k, 0)]))


def _votes(nearest: Nearest, k: int, temperature: float, num_classes: int) -> np.ndarray:
  """Votes of the first k, float64 [Q, num_classes], up to a factor for each query."""
  # On the host, because sums by atomic adds on an accelerator have another order
  # in each run.
  similarity, labels = (np.asarray(array)[:, :k] for array in nearest)
  chex.assert_equal_shape([similarity, labels])
  # Relative to the nearest, because exp(1 / temperature) may overflow.
  weights = np.exp((similarity - similarity[:, :1]).astype(np.float64) / temperature)
  classes = labels + num_classes * np.arange(len(labels))[:, None]
  votes = np.bincount(classes.ravel(), weights.ravel(), minlength=len(labels) * num_classes)
  return votes.reshape(len(labels), num_classes)
