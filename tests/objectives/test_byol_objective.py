import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.model import Outputs
from byol_jax.objectives import byol


def outputs(projection, prediction):
  return Outputs(None, jnp.asarray(projection, jnp.float32), jnp.asarray(prediction, jnp.float32),
                 None)


def draw(*seeds, shape=(6, 5)):
  return [np.random.default_rng(seed).normal(size=shape) for seed in seeds]


def loss(predictions, targets):
  """The loss of two predictions and two target projections; the other outputs are noise."""
  noise = draw(100, 101, shape=np.shape(targets[0]))
  return byol.loss([outputs(n, p) for n, p in zip(noise, predictions)],
                   [outputs(t, n) for n, t in zip(noise, targets)])


def cosine(a, b):
  return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_sums_two_minus_two_cosines_of_both_directions():
  p1, p2, t1, t2 = draw(0, 1, 2, 3)
  actual = loss((p1, p2), (t1, t2))
  assert actual.shape == (6,) and actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, (2 - 2 * cosine(p1, t2)) + (2 - 2 * cosine(p2, t1)),
                             atol=1e-5)


def test_swapping_the_views_changes_nothing():
  p1, p2, t1, t2 = draw(0, 1, 2, 3)
  np.testing.assert_allclose(loss((p1, p2), (t1, t2)), loss((p2, p1), (t2, t1)), atol=1e-6)


@pytest.mark.parametrize('sign, expected', [(1, 0.), (-1, 8.)])
def test_the_range_runs_from_aligned_to_opposite(sign, expected):
  p1, p2 = draw(0, 1)
  np.testing.assert_allclose(loss((p1, p2), (sign * p2, sign * p1)), expected, atol=1e-5)


@pytest.mark.parametrize('scale', [1e-2, 1e4])
def test_the_length_of_the_vectors_has_no_effect(scale):
  p1, p2, t1, t2 = draw(0, 1, 2, 3)
  np.testing.assert_allclose(loss((scale * p1, p2), (t1, scale * t2)), loss((p1, p2), (t1, t2)),
                             rtol=1e-5, atol=1e-5)


def test_the_gradient_is_orthogonal_to_the_prediction():
  p1, p2, t1, t2 = map(jnp.asarray, draw(0, 1, 2, 3))
  gradient = jax.grad(lambda p: loss((p, p2), (t1, t2)).sum())(p1)
  np.testing.assert_allclose(np.sum(gradient * p1, axis=1), 0, atol=1e-5)


def test_zero_vectors_give_a_finite_loss_and_gradient():
  zeros = jnp.zeros((2, 5))
  t1, t2 = map(jnp.asarray, draw(2, 3, shape=(2, 5)))
  np.testing.assert_allclose(loss((zeros, zeros), (t1, t2)), 2., atol=1e-6)
  np.testing.assert_array_equal(loss((zeros, zeros), (zeros, zeros)), 0.)
  gradients = jax.grad(lambda p: loss(p, (t1, t2)).sum())((zeros, zeros))
  assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_l2_normalize_against_numpy():
  vectors, = draw(0)
  np.testing.assert_allclose(byol.l2_normalize(jnp.asarray(vectors)),
                             vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)
  np.testing.assert_array_equal(byol.l2_normalize(jnp.zeros(3)), 0.)


@pytest.mark.parametrize('prediction, target', [((4,), (4,)), ((2, 4), (2, 5)), ((2, 4), (3, 4))])
def test_rejects_shapes_that_would_broadcast(prediction, target):
  with pytest.raises(AssertionError):
    byol.regression_loss(jnp.ones(prediction), jnp.ones(target))
