"""Order, metrics and ties of ranked galleries against hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.decomposition import PCA

from byol_jax.errors import InputError
from byol_jax.evaluation import ranking

OPTIONS = dict(depth=4, recall_at=(1, 3))
# Of images that occur once.
OTHERS = iter(range(10 ** 6))


def entries(identity, camera=None, image=None):
  count = len(identity)
  return ranking.Entries(
      np.array(identity), np.full(count, -1) if camera is None else np.array(camera),
      np.array([next(OTHERS) for _ in range(count)] if image is None else image))


def rank_one(scores, gallery, identity=1, camera=-1, image=-1, **options):
  """The fields of `Ranked` for one query."""
  query = ranking.Entries(*(np.array([value]) for value in (identity, camera, image)))
  found = ranking.rank(np.array([scores]), query, gallery, **(OPTIONS | options))
  return ranking.Ranked(*(field[0] for field in found))


def test_precision_at_each_match():
  # Order: wrong, right, wrong, right: (1/2 + 2/4) / 2.
  found = rank_one([.9, .8, .7, .6], entries([2, 1, 3, 1]))
  assert (found.matches, found.first) == (2, 2)
  assert found.average_precision == .5
  np.testing.assert_array_equal(found.recall, [0, .5])
  np.testing.assert_array_equal(found.nearest, [0, 1, 2, 3])
  np.testing.assert_array_equal(found.right, [False, True, False, True])


def test_images_of_the_query_s_camera_are_left_out():
  # The nearest is the query's vehicle in its own camera; another vehicle there stays.
  gallery = entries([1, 2, 1, 3], camera=[5, 5, 6, 6])
  found = rank_one([.9, .8, .7, .6], gallery, camera=5)
  assert (found.matches, found.first, found.average_precision) == (1, 2, .5)
  np.testing.assert_array_equal(found.nearest, [1, 2, 3, -1])
  # Where a camera is not known nothing is left out.
  assert rank_one([.9, .8, .7, .6], gallery, camera=-1).matches == 2


def test_the_query_itself_is_left_out():
  found = rank_one([1., .8, .7], entries([1, 2, 1], image=[7, 8, 9]), image=7)
  assert (found.matches, found.first, found.average_precision) == (1, 2, .5)


def test_of_equals_the_wrong_ones_stand_first():
  # wrong .9, then one right of three equals: places 4; then right at 5.
  gallery = entries([2, 1, 3, 4, 1])
  scores = [.9, .8, .8, .8, .7]
  found = rank_one(scores, gallery)
  assert found.first == 4
  assert found.average_precision == pytest.approx((1 / 4 + 2 / 5) / 2)
  np.testing.assert_array_equal(found.nearest, [0, 2, 3, 1])


def test_embeddings_that_are_all_the_same_gain_nothing():
  found = rank_one(np.ones(10), entries([1] + 9 * [2]))
  assert found.average_precision == pytest.approx(.1) and found.first == 10


def test_the_order_of_the_gallery_does_not_matter():
  random = np.random.default_rng(0)
  gallery = entries(random.integers(0, 5, 60), camera=random.integers(0, 3, 60))
  scores = random.integers(0, 8, 60) / 8
  shuffled = random.permutation(60)
  one = rank_one(scores, gallery, camera=1, depth=20)
  other = rank_one(scores[shuffled], ranking.Entries(*(a[shuffled] for a in gallery)), camera=1,
                    depth=20)
  assert one.average_precision == other.average_precision and one.first == other.first
  np.testing.assert_array_equal(one.nearest, shuffled[other.nearest])


def test_a_query_without_a_match_is_counted_and_left_out_of_the_means():
  gallery = entries([1, 1, 2], camera=[5, 5, 6])
  queries = ranking.Entries(np.array([1, 2, 9]), np.array([5, 5, 5]), np.array([-1, -2, -3]))
  scores = np.array([[.9, .8, .7], [.9, .8, .7], [.1, .2, .3]])
  ranked = ranking.rank(scores, queries, gallery, depth=2, recall_at=(2,))
  np.testing.assert_array_equal(ranked.matches, [0, 1, 0])
  np.testing.assert_array_equal(ranked.first, [0, 3, 0])
  assert np.isnan(ranked.average_precision[[0, 2]]).all()
  found = ranking.metrics(ranked, cmc_at=(1, 3), recall_at=(2,))
  assert found == dict(map=pytest.approx(1 / 3), rank1=0, rank3=1, recall_2=0)


def test_no_match_at_all_is_an_error():
  ranked = ranking.rank(np.ones((1, 2)), entries([1]), entries([2, 3]), **OPTIONS)
  with pytest.raises(InputError, match='None of the 1 queries has a match .* cameras'):
    ranking.metrics(ranked, cmc_at=(1,), recall_at=(1, 3))


@pytest.fixture(scope='module')
def problem():
  """Embeddings and labels of 23 queries and 150 gallery images."""
  random = np.random.default_rng(3)
  centres = random.normal(size=(9, 12))
  parts = []
  for count in (23, 150):
    identity = random.integers(0, 9, count)
    embeddings = centres[identity] + 1.5 * random.normal(size=(count, 12))
    parts.append((embeddings.astype(np.float32) * random.uniform(.1, 10, (count, 1)),
                  entries(identity, random.integers(0, 4, count))))
  return parts


def reference_similarity(queries, gallery):
  directions = [part / np.linalg.norm(part, axis=1, keepdims=True)
                for part in (queries.astype(np.float64), gallery.astype(np.float64))]
  return directions[0] @ directions[1].T


@pytest.mark.parametrize('block_bytes, chunk', [
    (1, 64), (4 * 150 * 7, 64), (4 * 150 * 7, 1000), (2 ** 28, 1), (2 ** 28, 75)])
def test_similarities_in_chunks(problem, monkeypatch, block_bytes, chunk):
  monkeypatch.setattr(ranking, 'CHUNK', chunk)
  (queries, _), (gallery, _) = problem
  rows, blocks = zip(*ranking.similarities(queries, gallery, block_bytes=block_bytes))
  assert np.concatenate([np.arange(r.start, r.stop) for r in rows]).tolist() == list(range(23))
  assert max(block.nbytes for block in blocks) <= max(block_bytes, 4 * 150)
  found = np.concatenate(blocks)
  np.testing.assert_allclose(found, reference_similarity(queries, gallery), atol=2e-6)
  np.testing.assert_array_equal(found / ranking.STEP, np.round(found / ranking.STEP))


def test_equal_images_are_equally_similar_wherever_they_stand():
  random = np.random.default_rng(0)
  gallery = random.normal(size=(1000, 37)).astype(np.float32)
  gallery[::91] = gallery[0]
  (_, block), = ranking.similarities(gallery[:9] + 1, gallery, block_bytes=2 ** 28)
  assert (block[:, ::91] == block[:, :1]).all()


def test_against_scikit_learn(problem):
  (queries, of_queries), (gallery, of_gallery) = problem
  (_, scores), = ranking.similarities(queries, gallery, block_bytes=2 ** 28)
  ranked = ranking.rank(scores, of_queries, of_gallery, depth=10, recall_at=(10,))
  exact = reference_similarity(queries, gallery)
  for row, (identity, camera, _) in enumerate(zip(*of_queries)):
    same = of_gallery.identity == identity
    kept = ~(same & (of_gallery.camera == camera))
    right = same[kept][np.argsort(-exact[row, kept])]
    assert ranked.average_precision[row] == pytest.approx(
        sklearn_metrics.average_precision_score(same[kept], exact[row, kept]))
    assert ranked.first[row] == 1 + np.argmax(right)
    assert ranked.recall[row, 0] == pytest.approx(right[:10].sum() / right.sum())
    np.testing.assert_array_equal(ranked.right[row], right[:10])
  assert .2 < ranked.average_precision.mean() < .95


def test_ties_are_those_of_scikit_learn_with_the_right_ones_a_little_lower():
  random = np.random.default_rng(1)
  scores = random.integers(0, 6, 80).astype(float)
  identity = random.integers(0, 4, 80)
  found = rank_one(scores, entries(identity))
  wanted = sklearn_metrics.average_precision_score(
      identity == 1, scores - 1e-3 * (identity == 1) - 1e-6 * np.arange(80))
  assert found.average_precision == pytest.approx(wanted)


def test_parts_are_as_the_whole(problem):
  (queries, of_queries), (gallery, of_gallery) = problem
  parts = [ranking.rank(scores, ranking.Entries(*(a[rows] for a in of_queries)), of_gallery,
                        **OPTIONS)
           for rows, scores in ranking.similarities(queries, gallery, block_bytes=4 * 150 * 5)]
  (_, scores), = ranking.similarities(queries, gallery, block_bytes=2 ** 28)
  whole = ranking.rank(scores, of_queries, of_gallery, **OPTIONS)
  for one, other in zip(ranking.together(parts), whole):
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize('dimensions', [1, 5, 12])
def test_whitening_against_scikit_learn(problem, monkeypatch, dimensions):
  monkeypatch.setattr(ranking, 'CHUNK', 64)
  gallery = problem[1][0]
  whitening = ranking.fit_whitening(gallery, dimensions)
  directions = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
  wanted = PCA(dimensions, whiten=True, svd_solver='full').fit(directions)
  found = ranking.whiten(whitening, problem[0][0])
  queries = problem[0][0] / np.linalg.norm(problem[0][0], axis=1, keepdims=True)
  # scikit-learn divides by N - 1; signs of components are free.
  expected = wanted.transform(queries) * np.sqrt(150 / 149)
  np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-2, atol=1e-2)
  np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-2, atol=5e-2)


def test_whitening_to_more_dimensions_than_there_are_is_an_error():
  flat = np.random.default_rng(0).normal(size=(50, 3)) @ np.eye(3, 8)
  with pytest.raises(InputError, match='whitening is 4.* 50 embeddings of 8 .* only 3 directions'):
    ranking.fit_whitening(flat, 4)
  with pytest.raises(InputError, match='in only 0 directions'):
    ranking.fit_whitening(np.ones((5, 3)), 1)


def test_matches_are_those_that_are_ranked():
  """Of any queries, cameras and copies: as many as `rank` counts."""
  random = np.random.default_rng(3)
  draw = lambda count: ranking.Entries(random.integers(0, 5, count), random.integers(-1, 3, count),
                                       random.integers(0, 30, count))
  queries, gallery = draw(40), draw(60)
  ranked = ranking.rank(random.normal(size=(40, 60)).astype(np.float32), queries, gallery,
                        depth=1, recall_at=(1,))
  np.testing.assert_array_equal(ranking.matches(queries, gallery), ranked.matches)
  alone = queries._replace(identity=queries.identity + 9)
  assert not ranking.matches(alone, gallery).any()
