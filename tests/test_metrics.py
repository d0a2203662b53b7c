import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import metrics


def statistics(vectors):
  moments = metrics.moments(jnp.asarray(vectors, jnp.float32))
  return metrics.collapse_statistics(moments['mean'], moments['second'])


def gaussian(count, dimensions, seed=0):
  return np.random.default_rng(seed).normal(size=(count, dimensions))


@pytest.mark.parametrize('k, expected', [
    (1, [True, False, False, True]), (2, [True, True, False, True]), (4, [True] * 4)])
def test_top_k_correct_by_hand(k, expected):
  logits = jnp.array([[.1, .7, .2, .0], [3., 2., 1., 0.], [-1., -2., -3., -4.], [0., 0., 0., 9.]])
  labels = jnp.array([1, 1, 3, 3])
  result = metrics.top_k_correct(logits, labels, k)
  assert result.dtype == bool
  np.testing.assert_array_equal(result, expected)


def test_top_k_correct_against_sorting():
  logits = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
  labels = np.random.default_rng(1).integers(0, 7, 50)
  best = np.argsort(-logits, axis=1)[:, :3]
  np.testing.assert_array_equal(metrics.top_k_correct(logits, jnp.asarray(labels), 3),
                                (best == labels[:, None]).any(axis=1))


def test_moments_against_numpy():
  vectors = 3 * gaussian(20, 4)
  directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  actual = metrics.moments(jnp.asarray(vectors, jnp.float32))
  np.testing.assert_allclose(actual['mean'], directions.mean(axis=0), atol=1e-6)
  np.testing.assert_allclose(actual['second'], np.mean(
      directions[:, :, None] * directions[:, None, :], axis=0), atol=1e-6)
  np.testing.assert_allclose(actual['norm'], np.linalg.norm(vectors, axis=1).mean(), rtol=1e-6)


def test_moments_averaged_over_shards_are_those_of_the_whole():
  vectors = jnp.asarray(gaussian(24, 5), jnp.float32)
  shards = [metrics.moments(shard) for shard in jnp.split(vectors, 4)]
  averaged = jax.tree.map(lambda *values: np.mean(values, axis=0), *shards)
  whole = metrics.moments(vectors)
  for name in whole:
    np.testing.assert_allclose(averaged[name], whole[name], atol=1e-6)


def test_moments_are_at_least_float32_and_finite_for_zero_vectors():
  moments = metrics.moments(jnp.zeros((3, 4), jnp.bfloat16))
  for value in moments.values():
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, 0.)


def test_isotropic_projections_fill_the_sphere():
  result = statistics(gaussian(4096, 32))
  assert result['std'] == pytest.approx(1, abs=.01)
  assert result['effective_rank'] == pytest.approx(32, rel=.02)


@pytest.mark.parametrize('count, dimensions', [
    (64, 4), (256, 256)])
def test_identical_projections_have_neither_spread_nor_rank(count, dimensions):
  result = statistics(np.tile(gaussian(1, dimensions), (count, 1)))
  assert result['std'] == pytest.approx(0, abs=2e-3)
  assert result['effective_rank'] == 0.


@pytest.mark.parametrize('line, std', [
    (np.ones(16), 1.), (np.eye(16)[0], 1 / np.sqrt(16))], ids=['diagonal', 'axis'])
def test_projections_on_a_line_have_rank_one(line, std):
  result = statistics(np.array([[1], [-1], [3], [-2]]) * line)
  assert result['std'] == pytest.approx(std, rel=1e-4)
  assert result['effective_rank'] == pytest.approx(1, rel=1e-3)


def test_the_rank_is_at_most_one_less_than_the_batch():
  # Three orthogonal directions span an equilateral triangle: two equal eigenvalues.
  assert statistics(np.eye(16)[:3])['effective_rank'] == pytest.approx(2, rel=1e-3)


def test_effective_rank_against_singular_values():
  vectors = gaussian(40, 6) * [8, 4, 2, 1, .5, .25] + 1
  directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  centred = directions - directions.mean(axis=0)
  shares = np.linalg.svd(centred, compute_uv=False) ** 2
  shares /= shares.sum()
  result = statistics(vectors)
  assert result['effective_rank'] == pytest.approx(
      np.exp(-np.sum(shares * np.log(shares))), rel=1e-4)
  assert result['std'] == pytest.approx(np.sqrt(6) * directions.std(axis=0).mean(), rel=1e-4)


def test_the_spectrum_is_that_of_the_covariance():
  embeddings = gaussian(50, 6) * [8, 4, 2, 1, .5, .25] + 3
  eigenvalues = np.linalg.eigvalsh(np.cov(embeddings.T))[::-1]
  found = metrics.spectrum(embeddings.astype(np.float32))
  np.testing.assert_allclose(found, eigenvalues / eigenvalues.sum(), rtol=1e-4)
  shares = eigenvalues / eigenvalues.sum()
  assert metrics.effective_rank(found) == pytest.approx(
      np.exp(-np.sum(shares * np.log(shares))), rel=1e-5)


@pytest.mark.parametrize('shape', [(50, 6), (6, 50)])
def test_rankme_is_of_the_singular_values_of_the_embeddings(shape):
  embeddings = gaussian(*shape) + 1
  shares = np.linalg.svd(embeddings, compute_uv=False)
  shares = shares / shares.sum()
  assert metrics.rankme(embeddings) == pytest.approx(np.exp(-np.sum(shares * np.log(shares))))


def test_spectra_of_a_line_and_of_a_point():
  line = np.arange(1, 9)[:, None] * np.ones(5)
  np.testing.assert_allclose(metrics.spectrum(line), [1, 0, 0, 0, 0], atol=1e-12)
  assert metrics.effective_rank(metrics.spectrum(line)) == pytest.approx(1)
  point = np.tile(np.float32(gaussian(1, 5)), (8, 1))
  np.testing.assert_array_equal(metrics.spectrum(point), np.zeros(5))
  assert metrics.effective_rank(metrics.spectrum(point)) == 0
