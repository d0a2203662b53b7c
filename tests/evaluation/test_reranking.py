"""k-reciprocal re-ranking against the paper's equations on dense matrices in float64."""

import numpy as np
import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation import ranking, reranking

OPTIONS = dict(k1=8, k2=3, weight=.3, block_bytes=2 ** 20, most_bytes=2 ** 24)


@pytest.fixture(scope='module')
def embeddings():
  random = np.random.default_rng(5)
  centres = random.normal(size=(6, 10))
  return [(centres[random.integers(0, 6, count)] + random.normal(size=(count, 10))
           ).astype(np.float32) for count in (11, 70)]


def dense(queries, gallery, k1, k2, weight):
  """The paper's final distance [Q, G], with sets and matrices."""
  together = np.concatenate([queries, gallery]).astype(np.float64)
  together /= np.linalg.norm(together, axis=1, keepdims=True)
  distance = np.sum((together[:, None] - together[None]) ** 2, axis=2)
  distance /= distance.max(axis=1, keepdims=True)
  order = np.argsort(distance, axis=1)
  count = len(together)

  def reciprocal(p, k):
    return {q for q in order[p, :k + 1] if p in order[q, :k + 1]}

  vectors = np.zeros((count, count))
  for p in range(count):
    own = reciprocal(p, k1)
    members = set(own)
    for q in own:
      theirs = reciprocal(q, round(k1 / 2))
      if len(own & theirs) > 2 / 3 * len(theirs):
        members |= theirs
    members = sorted(members)
    vectors[p, members] = np.exp(-distance[p, members])
    vectors[p] /= vectors[p].sum()
  vectors = np.stack([vectors[order[p, :k2]].mean(axis=0) for p in range(count)])
  first, second = vectors[:len(queries), None], vectors[None, len(queries):]
  jaccard = 1 - np.minimum(first, second).sum(axis=2) / np.maximum(first, second).sum(axis=2)
  return (1 - weight) * jaccard + weight * distance[:len(queries), len(queries):]


def run(queries, gallery, **changes):
  rows, blocks = zip(*reranking.scores(queries, gallery, **(OPTIONS | changes)))
  return rows, np.concatenate(blocks)


@pytest.mark.parametrize('k1, k2, weight', [(8, 3, .3), (5, 1, .3), (8, 3, 0.), (12, 6, .5)])
def test_against_the_equations(embeddings, k1, k2, weight):
  _, found = run(*embeddings, k1=k1, k2=k2, weight=weight)
  wanted = dense(*embeddings, k1, k2, weight)
  np.testing.assert_allclose(found, -wanted, atol=5e-6)
  assert found.std() > .05


def test_weight_one_is_the_original_order(embeddings):
  _, found = run(*embeddings, weight=1.)
  (_, similarity), = ranking.similarities(*embeddings, block_bytes=2 ** 20)
  np.testing.assert_array_equal(np.argsort(-found, axis=1), np.argsort(-similarity, axis=1))


def test_small_blocks_give_the_same(embeddings):
  rows, found = run(*embeddings, block_bytes=4 * 70 * 3)
  assert [r.stop - r.start for r in rows] == [3, 3, 3, 2]
  np.testing.assert_array_equal(found, run(*embeddings)[1])


def test_it_refuses_to_take_more_memory_than_it_may(embeddings):
  with pytest.raises(InputError, match=r'81 images would take 5832 bytes .* most_bytes, 5831;'):
    run(*embeddings, most_bytes=81 * 9 * 8 - 1)
  with pytest.raises(InputError, match=r'take \d+ bytes for their vectors'):
    run(*embeddings, most_bytes=81 * 9 * 8)


def test_more_neighbours_than_images_are_refused(embeddings):
  with pytest.raises(InputError, match='k1 is 81, but there are 81 images .* at most 80'):
    run(*embeddings, k1=81)
