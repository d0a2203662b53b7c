"""The evaluator: which images are queries and gallery, options, counts and errors."""

import numpy as np
import pytest

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from byol_jax.evaluation import ranking
from byol_jax.evaluation.contract import EvalContext, Features, FitContext
from byol_jax.evaluators import retrieval
from byol_jax.input_pipeline.retrieval_lists import Roles

NUM_CLASSES = 6


def make_features(seed, count, labelled=True):
  """Overlapping clusters, ids shuffled."""
  random = np.random.default_rng(seed)
  centres = np.random.default_rng(9).normal(size=(NUM_CLASSES, 8))
  labels = random.integers(0, NUM_CLASSES, count).astype(np.int32)
  embeddings = centres[labels] + random.normal(size=(count, 8))
  return Features(embeddings.astype(np.float32), labels if labelled else None,
                  random.permutation(count).astype(np.int32))


def make_roles(count, queries, cameras=None):
  """The first ids are queries; images differ."""
  number = np.full(count, -1) if cameras is None else np.asarray(cameras)
  ids = np.arange(count, dtype=np.int32)
  return Roles(ids < queries, number.astype(np.int32), ids, ids % NUM_CLASSES,
               np.array([f'{i}.jpg' for i in range(count)], object),
               np.array(['' if n < 0 else f'c{n}' for n in number], object))


def never():
  raise AssertionError('not needed')


def fit(train=never, *, roles=None, **changes):
  """The roles come without labels, as from the caller."""
  options = plugin_options('evaluators', 'retrieval').to_dict() | dict(
      depth=3, recall_at=(5,)) | changes
  context = FitContext(NUM_CLASSES, lambda split: dict(train=train, validation=never)[split](),
                       roles=roles and roles._replace(label=None))
  return retrieval.fit(context, **options)


def evaluate(fitted, test):
  """Scores and what was kept."""
  kept = []
  scores = retrieval.evaluate(fitted, EvalContext(lambda split: test, kept.append))
  return scores, kept[0]


def mean_average_precision(queries, gallery, left_out):
  """Brute force in float64; `left_out` is bool [Q, G]."""
  directions = [f.embeddings.astype(np.float64) / np.linalg.norm(f.embeddings, axis=1,
                                                                 keepdims=True)
                for f in (queries, gallery)]
  found = []
  for scores, label, out in zip(directions[0] @ directions[1].T, queries.labels, left_out):
    right = (gallery.labels == label)[~out][np.argsort(-scores[~out])]
    places = 1 + np.flatnonzero(right)
    if len(places):
      found.append(np.mean(np.arange(1, len(places) + 1) / places))
  return np.mean(found)


def test_training_images_are_the_gallery_of_a_set_with_classes():
  train, test = make_features(0, 90), make_features(1, 40)
  # Equal ids are other images: none is left out.
  scores, result = evaluate(fit(lambda: train), test)
  assert scores['map'] == pytest.approx(mean_average_precision(
      test, train, np.zeros((40, 90), bool)))
  assert (scores['queries'], scores['queries_without_match']) == (40, 0)
  assert scores['gallery_images'] == 90
  assert (result.split, len(result.gallery)) == ('train', 90)
  np.testing.assert_array_equal(result.gallery_identity, train.labels)
  counts = np.bincount(train.labels, minlength=NUM_CLASSES)[test.labels]
  assert scores['chance_map'] == pytest.approx(counts.mean() / 90)


def test_the_other_test_images_are_the_gallery():
  test = make_features(1, 40)
  scores, result = evaluate(fit(gallery='test'), test)
  assert scores['map'] == pytest.approx(mean_average_precision(test, test, np.eye(40, dtype=bool)))
  assert not (result.gallery[result.ranked.nearest] == result.query[:, None]).any()


def test_lists_with_cameras():
  test = make_features(2, 60)
  roles = make_roles(60, 15, np.random.default_rng(0).integers(0, 3, 60))
  scores, result = evaluate(fit(roles=roles, gallery='lists'), test)
  # By id, as the roles are.
  order = np.argsort(test.sample_id)
  by_id = Features(*(array[order] for array in test))
  queries, gallery = (Features(*(array[rows] for array in by_id))
                      for rows in (slice(15), slice(15, 60)))
  same = queries.labels[:, None] == gallery.labels
  out = same & (roles.camera[:15, None] == roles.camera[15:])
  assert scores['map'] == pytest.approx(mean_average_precision(queries, gallery, out))
  assert sorted(result.query) == list(range(15))


def test_whitening_is_fitted_on_training_images_without_labels():
  train, test = make_features(0, 90, labelled=False), make_features(1, 40)
  fitted = fit(lambda: train, gallery='test', whitening=4)
  white = ranking.whiten(ranking.fit_whitening(train.embeddings, 4), test.embeddings)
  scores, _ = evaluate(fitted, test)
  plain, _ = evaluate(fit(gallery='test'), test._replace(embeddings=white))
  assert scores == plain != evaluate(fit(gallery='test'), test)[0]
  assert 'whitened to 4 dimensions' in retrieval.describe(fitted)['protocol']


def test_re_ranking_helps_where_clusters_overlap():
  train, test = make_features(0, 200), make_features(1, 60)
  fitted = fit(lambda: train, rerank=True)
  scores, _ = evaluate(fitted, test)
  assert scores['map'] > evaluate(fit(lambda: train), test)[0]['map'] + .02
  described = retrieval.describe(fitted)
  assert 'Re-ranked' in described['protocol'] and described['k1'] == 20
  assert 'k1' not in retrieval.describe(fit(lambda: train))


def test_images_that_could_not_be_read_are_missed_by_id():
  test = make_features(2, 60)
  roles = make_roles(60, 15)
  kept = Features(*(array[test.sample_id != 3] for array in test))
  scores, result = evaluate(fit(roles=roles, gallery='lists'), kept)
  assert scores['queries'] == 14 and 3 not in result.query
  none_left = Features(*(array[test.sample_id >= 15] for array in test))
  with pytest.raises(InputError, match='query list has no image that could be read'):
    evaluate(fit(roles=roles, gallery='lists'), none_left)


def test_queries_without_a_match_are_counted():
  test = make_features(2, 60)
  lonely = int(test.labels[test.sample_id == 0][0])
  labels = np.where((test.labels == lonely) & (test.sample_id >= 15), (lonely + 1) % NUM_CLASSES,
                    test.labels).astype(np.int32)
  without = np.sum((labels == lonely) & (test.sample_id < 15))
  scores, _ = evaluate(fit(roles=make_roles(60, 15), gallery='lists'), test._replace(labels=labels))
  assert scores['queries_without_match'] == without > 0
  assert scores['queries'] == 15 - without


def test_one_camera_only_is_said():
  with pytest.raises(InputError, match='All 15 queries and 45 gallery images come from one camera'):
    evaluate(fit(roles=make_roles(60, 15, np.full(60, 2)), gallery='lists'), make_features(2, 60))


@pytest.mark.parametrize('changes, message', [
    (dict(gallery='lists'), "'lists', but the data set has no lists .* train or test"),
    (dict(roles=make_roles(5, 2)), "'train', but the data set has lists .* lists")])
def test_galleries_that_the_data_set_has_not(changes, message):
  with pytest.raises(InputError, match=message):
    fit(lambda: make_features(0, 20), **changes)


def test_unlabelled_galleries_are_refused():
  with pytest.raises(InputError, match='20 train images have no labels'):
    fit(lambda: make_features(0, 20, labelled=False))
