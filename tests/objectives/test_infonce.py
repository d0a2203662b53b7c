"""Eq. 8 on one and on several devices against float64, and its ends, BYOL and SimCLR."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.distributed import parallel
from byol_jax.model import Outputs
from byol_jax.objectives import byol, infonce

B, P = 8, 5


def draw(seed=0):
  """Predictions and projections of two views, [4, B, P]."""
  return np.random.default_rng(seed).normal(size=(4, B, P))


def mean_loss(vectors, objective):
  """The mean loss of this device's predictions and projections [4, b, P]."""
  q1, q2, z1, z2 = vectors
  return jnp.mean(objective([Outputs(None, None, q, None) for q in (q1, q2)],
                            [Outputs(None, z, None, None) for z in (z1, z2)]))


def run(vectors, count=1, objective=None, dtype=np.float32, **options):
  """(loss, its gradient [4, B, P]) with the batch on `count` devices."""
  options = dict(dict(temperature=.3, normalization='l2'), **options)
  objective = objective or functools.partial(infonce.loss, **options)
  shares = np.asarray(vectors, dtype).reshape(4, count, -1, P).swapaxes(0, 1)
  losses, gradients = parallel.pmap_evaluation(
      lambda _, x: jax.value_and_grad(mean_loss)(x, objective), jax.devices()[:count])((), shares)
  # Each device has its share of the mean over devices.
  return np.mean(losses), np.asarray(gradients).swapaxes(0, 1).reshape(4, B, P) / count


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


def equation_8(vectors, beta, alpha):
  """Minus Eq. 8, the constant of one direction added, image by image, both directions summed."""
  q1, q2, z1, z2 = map(unit, vectors)
  total = 0.
  for q, same, other in ((q1, z1, z2), (q2, z2, z1)):
    for i in range(len(q)):
      negatives = sum(np.exp(q[i] @ same[j] / alpha) for j in range(len(q)) if j != i)
      negatives += sum(np.exp(q[i] @ other[j] / alpha) for j in range(len(q)))
      total += 2 - 2 * q[i] @ other[i] + 2 * alpha * beta * np.log(negatives)
  return total / len(q1)


def numerical_gradient(function, x, step=1e-6):
  gradient = np.zeros_like(x)
  for index in np.ndindex(*x.shape):
    moved = np.zeros_like(x)
    moved[index] = step
    gradient[index] = (function(x + moved) - function(x - moved)) / (2 * step)
  return gradient


@pytest.mark.parametrize('beta, alpha', [(0., .1), (.5, .3), (1., .1), (1., 3.), (1., .01)])
def test_against_the_equation_and_its_differences_in_float64(beta, alpha):
  vectors = draw()
  expected = functools.partial(equation_8, beta=beta, alpha=alpha)
  loss, gradient = run(vectors, beta=beta, temperature=alpha)
  np.testing.assert_allclose(loss, expected(vectors), rtol=1e-5)
  numerical = numerical_gradient(expected, vectors)
  np.testing.assert_allclose(gradient, numerical, atol=1e-5 * max(1, np.abs(numerical).max()))


@pytest.mark.parametrize('normalization', infonce.NORMALIZATIONS)
def test_1_2_and_4_devices_agree(normalization):
  with jax.enable_x64(True):
    results = [run(draw(), count, dtype=np.float64, beta=.7, normalization=normalization)
               for count in (1, 2, 4)]
  for loss, gradient in results[1:]:
    np.testing.assert_allclose(loss, results[0][0], rtol=1e-12)
    np.testing.assert_allclose(gradient, results[0][1], rtol=1e-9, atol=1e-12)


def test_beta_0_is_byol():
  loss, gradient = run(draw(), beta=0.)
  expected = run(draw(), objective=byol.loss)
  np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected[1], atol=1e-6)


def test_beta_0_and_a_small_beta_agree():
  nothing, little = (run(draw(), beta=beta) for beta in (0., 1e-6))
  np.testing.assert_allclose(little[0], nothing[0], atol=1e-5)
  np.testing.assert_allclose(little[1], nothing[1], atol=1e-6)


def test_simclr_is_nt_xent():
  """Of 2B normalised projections each has its pair to find among 2B - 1 (Chen et al., Eq. 1)."""
  z1, z2, _, _ = draw()
  alpha, z = .5, unit(np.concatenate([z1, z2]))
  similarities = z @ z.T / alpha
  losses = []
  for i in range(2 * B):
    others = [similarities[i, k] for k in range(2 * B) if k != i]
    losses.append(-similarities[i, (i + B) % (2 * B)] + np.log(np.sum(np.exp(others))))
  loss, _ = run((z1, z2, z1, z2), beta=1., temperature=alpha)
  np.testing.assert_allclose((loss - 4) / (4 * alpha), np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize('normalization, normalized', [
    ('layer_norm', lambda x: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) / P ** .5),
    ('batch_norm', lambda x: (x - x.mean(0)) / x.std(0) / P ** .5), ('none', lambda x: x)])
def test_normalizations_of_the_attraction(normalization, normalized):
  q1, q2, z1, z2 = map(normalized, draw())
  expected = np.mean(np.sum((q1 - z2) ** 2 + (q2 - z1) ** 2, axis=1))
  loss, _ = run(draw(), beta=0., normalization=normalization)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_vectors_of_any_length_give_finite_numbers():
  for scale in (0., 1e-20, 1e6):
    for normalization in ('l2', 'layer_norm', 'batch_norm'):
      results = run(scale * draw(), beta=1., normalization=normalization)
      assert all(np.isfinite(result).all() for result in results)
