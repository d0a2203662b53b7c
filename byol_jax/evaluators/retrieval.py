"""Retrieval: for each query, the images of its identity should come first in the ranked gallery.

`ranking` computes the order and the metrics; `reranking` can change the order afterwards. Queries
and gallery come from the data set's lists or, for data sets with classes, are the test images and
the training images, with the class as identity.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax import ranges
from byol_jax.errors import InputError
from byol_jax.evaluation import ranking, reranking
from byol_jax.evaluation.contract import EvalContext, Facts, Features, FitContext, check_features
from byol_jax.input_pipeline.retrieval_lists import Roles

TITLE, MAIN_METRIC = 'retrieval', 'map'
METRICS = {'map': 'mAP', 'rank1': 'rank-1', 'rank5': 'rank-5', 'rank10': 'rank-10',
           'recall_{}': 'recall at {}'}
IN_TABLE = ('rank1', 'rank5', 'rank10')
RETRIEVES = True
GALLERIES = ('lists', 'train', 'test')
CMC_AT = (1, 5, 10)
_BYTES = ranges.whole(1, ranges.LARGEST_64_BITS)
OPTIONS = dict(
    # 'lists': the data set lists queries and gallery. For data sets with classes: 'train', the
    # training images, or 'test', the other test images; 'lists', 'train' or 'test'
    gallery='train',
    # Dimensions kept by a PCA whitening fitted on training images (0: no whitening);
    # a whole number of 0 or more
    whitening=0,
    rerank=False,  # by k-reciprocal neighbours (Zhong et al. 2017); True or False
    # Nearest images that can be reciprocal (Zhong, section 4.1); a whole number of 1 or more
    k1=20,
    # Nearest images whose vectors are averaged, at most k1 + 1 (Zhong, section 4.1);
    # a whole number of 1 or more
    k2=6,
    original_weight=0.3,  # lambda, of the original distance (Zhong, 4.1); a number in [0, 1]
    # Depths at which recall is reported; one or more whole numbers of 1 or more, each once
    recall_at=(10, 100),
    depth=50,  # images of each ranked list that are written; a whole number of 1 or more
    # Queries in the picture of each kind: evenly chosen, best and worst (0: no picture);
    # a whole number of 0 or more
    pictured=3,
    # Bytes of similarities held at a time (64 bits); a whole number of 1 or more
    block_bytes=2 ** 28,
    # Most bytes that re-ranking may use (64 bits); a whole number of 1 or more
    most_bytes=2 ** 33,
)
RANGES = dict(
    gallery=ranges.OneOf(GALLERIES), whitening=ranges.whole(0), rerank=ranges.FLAG,
    k1=ranges.whole(1), k2=ranges.whole(1), original_weight=ranges.SHARE,
    recall_at=ranges.Several(ranges.whole(1), order='each once'), depth=ranges.whole(1),
    pictured=ranges.whole(0), block_bytes=_BYTES, most_bytes=_BYTES)
PROTOCOL = (
    'The gallery is ranked by cosine similarity for each query. Left out: images of the query\'s '
    'identity from its camera, and the query itself. mAP is the mean over the queries of the mean '
    'precision at each match, rank-k the share of queries with a match among the first k, recall '
    'at k the share of a query\'s matches among the first k. Of equally similar images the wrong '
    'ones stand first. Queries without a match are left out and counted. Nothing is chosen.')


class Fitted(NamedTuple):
  """The training images if they are the gallery, and the lists and whitening if there are any."""

  train: Features | None
  roles: Roles | None
  whitening: ranking.Whitening | None
  num_classes: int
  options: dict[str, Any]


def check_options(*, rerank: bool, k1: int, k2: int, **_) -> None:
  """Raises InputError for options of `fit` that do not go together."""
  if rerank and k2 > k1 + 1:
    raise InputError(f'evaluators.retrieval.k2 is {k2} and k1 {k1}; k2 can be at most k1 + 1.')


def check(facts: Facts, **options: Any) -> None:
  """Checks the options against the lists, labels and counts.

  Args:
    facts: facts about the data.
    **options: options of `fit`.

  Raises:
    InputError: an option is out of range, no query has a match, or more dimensions, neighbours
      or memory are needed than available.
  """
  _check_gallery(options['gallery'], facts.roles)
  if options['whitening']:
    _check_whitening(options['whitening'], facts.train.images, facts.embedding_size())
  gallery = options['gallery']
  known = _known_entries(facts, gallery)
  if known:
    _check_matches(*known)
  if options['rerank']:
    size = [options[key] for key in ('k1', 'k2', 'most_bytes')]
    if known:
      reranking.check_size(sum(len(part.identity) for part in known), *size)
    elif gallery == 'train':
      reranking.check_memory(facts.train.images, *size)


def _check_whitening(dimensions: int, images: int, size: int) -> None:
  most = min(images - 1, size)
  if dimensions > most:
    raise InputError(f'whitening is {dimensions}, but {images} training images with embeddings of '
                     f'{size} dimensions vary in at most {most} directions; set it to at most '
                     'that, or to 0 for no whitening.')


def _known_entries(facts: Facts, gallery: str) -> tuple[ranking.Entries, ranking.Entries] | None:
  """Queries and gallery, if their labels are known."""
  if gallery == 'lists':
    roles = facts.roles
    return tuple(ranking.Entries(*(array[rows] for array in (roles.label, roles.camera,
                                                             roles.image)))
                 for rows in (roles.query, ~roles.query))
  if facts.test is None or facts.test.labels is None:
    return None
  test = _without_cameras(facts.test.labels, np.arange(facts.test.images))
  if gallery == 'test':
    return test, test
  labels = facts.train.labels
  return None if labels is None else (test, _without_cameras(labels, -1 - np.arange(len(labels))))


def fit(context: FitContext, *, gallery: str, whitening: int, rerank: bool, k1: int, k2: int,
        original_weight: float, recall_at: Sequence[int], depth: int, pictured: int,
        block_bytes: int, most_bytes: int) -> Fitted:
  """Prepares what is needed from the training images; held-out images are not used.

  Args:
    context: features of the training images, if they are the gallery (then they must be
      labelled) or are needed for the whitening; and the roles, if the data set has lists.
    gallery: 'lists': the gallery of the data set's lists; 'train': the training images; 'test':
      the other test images.
    whitening: dimensions of the PCA-whitening fitted on training images; 0 for none.
    rerank: whether to re-rank by k-reciprocal neighbours.
    k1: as in `reranking.scores`.
    k2: as in `reranking.scores`.
    original_weight: weight of the original distance, as in `reranking.scores`.
    recall_at: depths at which recall is reported.
    depth: number of images of each ranked list that are written.
    pictured: number of queries drawn of each kind: evenly chosen, best and worst.
    block_bytes: bytes of similarities held in memory at a time.
    most_bytes: most bytes that re-ranking may use.

  Raises:
    InputError: lists are missing or must not be given, or training features are unusable.
  """
  _check_gallery(gallery, context.roles)
  features = context.features('train') if gallery == 'train' or whitening else None
  if gallery == 'train':
    check_features('train', features, context.num_classes)
  fitted = ranking.fit_whitening(features.embeddings, whitening) if whitening else None
  options = dict(
      gallery=gallery, whitening=whitening, rerank=rerank, recall_at=tuple(recall_at), depth=depth,
      pictured=pictured, block_bytes=block_bytes, most_bytes=most_bytes,
      **dict(k1=k1, k2=k2, original_weight=original_weight) if rerank else {})
  return Fitted(features if gallery == 'train' else None, context.roles, fitted,
                context.num_classes, options)


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """Ranks the gallery for each query, keeps the lists, and measures the order.

  Args:
    fitted: the result of `fit`.
    context: labelled features [M, D] of the test images.

  Returns:
    'map', 'rank1', 'rank5', 'rank10' and 'recall_K' in [0, 1], and the counts 'queries',
    'queries_without_match' and 'gallery_images'. 'chance_map' is the mean share of matches in
    the gallery, which is about the mAP of a random order.

  Raises:
    InputError: test features are unusable, or no query has a match.
  """
  test = context.features('test')
  check_features('test', test, fitted.num_classes)
  query, gallery, entries = _problem(fitted, test)
  for name, part in (('query', query), ('gallery', gallery)):
    if not len(part.embeddings):
      raise InputError(f'The {name} list has no image that could be read.')
  # Checked again, because images that could not be read are missing.
  _check_matches(*entries)
  options = fitted.options
  ranked = ranking.together([
      ranking.rank(scores, ranking.Entries(*(array[rows] for array in entries[0])), entries[1],
                   depth=options['depth'], recall_at=options['recall_at'])
      for rows, scores in _scores(fitted, query.embeddings, gallery.embeddings)])
  found = ranking.metrics(ranked, cmc_at=CMC_AT, recall_at=options['recall_at'])
  split = 'train' if options['gallery'] == 'train' else 'test'
  context.keep(ranking.Result(ranked, query.sample_id, gallery.sample_id, split, query.labels,
                              gallery.labels, options['pictured']))
  counted = ranked.matches > 0
  return dict(found, queries=int(counted.sum()), queries_without_match=int((~counted).sum()),
              gallery_images=len(gallery.sample_id),
              chance_map=float(ranked.matches[counted].mean() / len(gallery.sample_id)))


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words and the options."""
  more = ''
  if fitted.whitening is not None:
    more += (f' Embeddings are whitened to {fitted.whitening.matrix.shape[1]} dimensions, fitted '
             'on the training images without their labels.')
  if fitted.options['rerank']:
    more += (' Re-ranked by k-reciprocal neighbours (Zhong et al. 2017) of all queries and the '
             'gallery together; scores in the lists are distances with their signs changed.')
  return dict(protocol=PROTOCOL + more, **fitted.options)


def note(scores: Mapping[str, Any]) -> str:
  """A sentence on what was counted, and how it was ranked."""
  more = [f'whitened to {scores["whitening"]} dimensions'] * bool(scores['whitening'])
  more += ['re-ranked by k-reciprocal neighbours'] * scores['rerank']
  return (f'Retrieval: {scores["queries"]} queries in a gallery of {scores["gallery_images"]} '
          f'images{", " + ", ".join(more) if more else ""}; {scores["queries_without_match"]} '
          'queries without a match left out; mAP of a random order about '
          f'{100 * scores["chance_map"]:.1f}.')


def _check_gallery(gallery: str, roles: Roles | None) -> None:
  if (gallery == 'lists') != (roles is not None):
    raise InputError(f"gallery is {gallery!r}, but the data set has {'no ' * (roles is None)}lists "
                     f"of queries; set it to {'train or test' if roles is None else 'lists'}.")


def _without_cameras(labels: np.ndarray, image: np.ndarray) -> ranking.Entries:
  return ranking.Entries(labels, np.full(len(labels), -1, np.int32), image)


def _problem(fitted: Fitted, test: Features):
  """Queries and gallery, and what is known about each: two Features, two Entries."""
  gallery, roles = fitted.options['gallery'], fitted.roles
  own = _without_cameras(test.labels, test.sample_id)
  if gallery == 'test':
    return test, test, (own, own)
  if gallery == 'train':
    train = fitted.train
    chex.assert_equal_shape_suffix([train.embeddings, test.embeddings], 1)
    # Negative image numbers, which no query has.
    return test, train, (own, _without_cameras(train.labels, -1 - train.sample_id))
  is_query = roles.query[test.sample_id]
  parts = [Features(*(array[rows] for array in test)) for rows in (is_query, ~is_query)]
  return *parts, tuple(ranking.Entries(part.labels, roles.camera[part.sample_id],
                                       roles.image[part.sample_id]) for part in parts)


def _scores(fitted: Fitted, queries: np.ndarray, gallery: np.ndarray):
  """Rows of queries with their scores [q, G], higher is nearer."""
  options = fitted.options
  if fitted.whitening is not None:
    queries, gallery = (ranking.whiten(fitted.whitening, part) for part in (queries, gallery))
  if not options['rerank']:
    return ranking.similarities(queries, gallery, block_bytes=options['block_bytes'])
  return reranking.scores(
      queries, gallery, k1=options['k1'], k2=options['k2'], weight=options['original_weight'],
      block_bytes=options['block_bytes'], most_bytes=options['most_bytes'])


def _check_matches(queries: ranking.Entries, gallery: ranking.Entries) -> None:
  """Raises InputError if no query has a match."""
  if ranking.matches(queries, gallery).any():
    return
  cameras = np.unique(np.concatenate([queries.camera, gallery.camera]))
  if len(cameras) == 1 and cameras[0] >= 0:
    raise InputError(
        f'All {len(queries.camera)} queries and {len(gallery.camera)} gallery images come from '
        'one camera, and images of a query\'s identity from its own camera are left out, so no '
        'query has a match. If there is only one camera, leave cameras out of the lists.')
  raise InputError(
      f'None of the {len(queries.identity)} queries has a match in the gallery of '
      f'{len(gallery.identity)} images: a match is another image of its identity, from '
      'another camera if cameras are known. Check the identities and cameras.')
