"""The predictor of least squares, against NumPy in float64."""


import jax
import numpy as np
import pytest

from byol_jax.objectives import closed_form
from tests.objectives.test_infonce import B, P, draw, numerical_gradient, run, unit

RIDGE = 1e-2


def matrix(z1, z2, t1, t2, ridge):
  """Both directions as rows of one ridge regression, solved as an ordinary one with more rows."""
  inputs, wanted = np.concatenate([z1, z2]), unit(np.concatenate([t2, t1]))
  penalty = ridge * np.mean(np.sum(inputs ** 2, axis=0))
  extended = np.concatenate([inputs, np.sqrt(penalty) * np.eye(P)])
  return np.linalg.lstsq(extended, np.concatenate([wanted, np.zeros((P, P))]), rcond=None)[0]


def expected_loss(vectors, fixed):
  z1, z2, t1, t2 = vectors
  return np.mean(np.sum((unit(z1 @ fixed) - unit(t2)) ** 2 + (unit(z2 @ fixed) - unit(t1)) ** 2,
                        axis=1))


def objective(online, target):
  """Of vectors that `run` calls predictions: here they are the online projections."""
  online = [outputs._replace(projection=outputs.prediction, prediction=None) for outputs in online]
  return closed_form.loss(online, target, ridge=RIDGE)


def test_the_loss_and_its_gradient_with_the_matrix_held_fixed():
  vectors = draw()
  fixed = matrix(*vectors, RIDGE)
  loss, gradient = run(vectors, objective=objective)
  np.testing.assert_allclose(loss, expected_loss(vectors, fixed), rtol=1e-5)
  online = lambda z: expected_loss((*z, *vectors[2:]), fixed)
  np.testing.assert_allclose(gradient[:2], numerical_gradient(online, vectors[:2]), atol=1e-5)


def test_it_is_the_best_matrix_for_the_squared_distance():
  z1, z2, t1, t2 = draw()
  fixed = matrix(z1, z2, t1, t2, 0.)
  error = lambda m: np.sum((z1 @ m - unit(t2)) ** 2) + np.sum((z2 @ m - unit(t1)) ** 2)
  for seed in range(5):
    other = fixed + 1e-3 * np.random.default_rng(seed).normal(size=(P, P))
    assert error(other) > error(fixed)


def test_1_2_and_4_devices_agree():
  with jax.enable_x64(True):
    results = [run(draw(), count, objective=objective, dtype=np.float64) for count in (1, 2, 4)]
  for loss, gradient in results[1:]:
    np.testing.assert_allclose(loss, results[0][0], rtol=1e-12)
    np.testing.assert_allclose(gradient, results[0][1], atol=1e-12)


@pytest.mark.parametrize('scale', [0., 1e-6, 1e6])
def test_projections_of_any_length_give_finite_numbers(scale):
  loss, gradient = run(scale * draw(), objective=objective)
  assert np.isfinite(loss) and np.isfinite(gradient).all() and gradient.shape == (4, B, P)


def test_a_collapsed_batch_has_a_solution():
  same = np.broadcast_to(draw()[:, :1], (4, B, P))
  loss, _ = run(same, objective=objective)
  assert np.isfinite(loss)
