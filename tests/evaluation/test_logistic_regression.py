import time

import jax
import numpy as np
import pytest
from scipy.special import expit, logsumexp
from sklearn import datasets
from sklearn.linear_model import LogisticRegression

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from byol_jax.evaluation import logistic_regression

PROBLEMS = ('digits', 'wine', 'breast_cancer')
OPTIONS = dict(kind='multinomial', l2_values=(1.,), tolerance=1e-8, max_iterations=1000,
               dtype='float64')
# The penalties of the paper's grid, every eleventh of which is looked at.
L2_VALUES = np.geomspace(1e-6, 1e5, 45)


def load(name):
  data = getattr(datasets, f'load_{name}')()
  return data.data, data.target, np.eye(data.target.max() + 1)[data.target]


def multinomial(weights, bias, inputs, targets, l2):
  scores = inputs @ weights + bias
  return (np.sum(logsumexp(scores, axis=1) - np.sum(scores * targets, axis=1))
          + l2 / 2 * np.sum(weights ** 2))


def newton_minimum(inputs, labels, targets, l2):
  """The objective where scikit-learn's Newton method ends."""
  two = targets.shape[1] == 2
  regression = LogisticRegression(C=(2 if two else 1) / l2, solver='newton-cholesky', tol=1e-12,
                                  max_iter=1000).fit(inputs, labels)
  weights, bias = regression.coef_.T, regression.intercept_
  if two:
    weights, bias = (np.concatenate([-x / 2, x / 2], axis=-1) for x in (weights, bias))
  return multinomial(weights, bias, inputs, targets, l2)


@pytest.fixture(scope='module', params=PROBLEMS)
def problem(request):
  inputs, labels, targets = load(request.param)
  # float32, as features are; their numbers are those that both sides see.
  inputs = inputs.astype(np.float32)
  return inputs, labels, targets, list(logistic_regression.path(
      inputs, targets, **OPTIONS | dict(l2_values=L2_VALUES)))


@pytest.mark.parametrize('index', range(0, 45, 11))
def test_every_penalty_is_minimised_as_by_newtons_method(problem, index):
  inputs, labels, targets, solutions = problem
  l2, parameters, objective, *_ = solutions[index]
  best = newton_minimum(inputs.astype(np.float64), labels, targets, l2)
  assert objective == pytest.approx(best, rel=1e-6)
  assert multinomial(*parameters, inputs.astype(np.float64), targets, l2) == pytest.approx(
      objective, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('name', PROBLEMS)
def test_all_penalties_with_the_shipped_tolerance(name):
  """Prints what stands in docs/measurements/evaluations.md: `pytest -m slow -s`."""
  inputs, labels, targets = load(name)
  inputs, shipped = inputs.astype(np.float32), plugin_options('evaluators', 'linear_transfer')
  began = time.perf_counter()
  solutions = list(logistic_regression.path(
      inputs, targets, kind='multinomial', l2_values=L2_VALUES, tolerance=shipped.tolerance,
      max_iterations=shipped.max_iterations, dtype=shipped.dtype))
  seconds = time.perf_counter() - began
  above = []
  for solution in solutions:
    best = newton_minimum(inputs.astype(np.float64), labels, targets, solution.l2)
    above.append(multinomial(*solution.parameters, inputs.astype(np.float64), targets,
                             solution.l2) / best - 1)
  print(f'{name}: {min(above):.1e} to {max(above):.1e} above Newton, '
        f'{sum(s.iterations for s in solutions)} iterations, {seconds:.1f} s')
  assert len(above) == 45 and max(above) < 1e-4 and all(s.converged for s in solutions)
  # Newton's method itself ended at the minimum, or this would say nothing.
  assert min(above) > -1e-6


def rare_classes(name):
  """All images of the first class, two of the last, and a power law between."""
  inputs, labels, targets = load(name)
  counts = np.bincount(labels)
  keep = np.concatenate([np.flatnonzero(labels == c)[:max(2, round(n * (2 / n) ** (
      c / (len(counts) - 1))))] for c, n in enumerate(counts)])
  return inputs[keep].astype(np.float32), labels[keep], targets[keep]


@pytest.mark.parametrize('sum_in_iterations', [.25, 1e9], ids=['anew', 'once'])
def test_rare_classes_are_minimised_at_every_penalty_with_the_shipped_tolerance(
    monkeypatch, sum_in_iterations):
  """Of 59, 12 and 2 images, whatever the age of the sum of curvatures."""
  monkeypatch.setattr(logistic_regression, 'SUM_IN_ITERATIONS', sum_in_iterations)
  inputs, labels, targets = rare_classes('wine')
  assert np.bincount(labels).tolist() == [59, 12, 2]
  shipped = plugin_options('evaluators', 'linear_transfer')
  exact = inputs.astype(np.float64)
  for solution in logistic_regression.path(
      inputs, targets, kind='multinomial', l2_values=L2_VALUES, tolerance=shipped.tolerance,
      max_iterations=shipped.max_iterations, dtype=shipped.dtype):
    regression = LogisticRegression(C=1 / solution.l2, solver='newton-cholesky', tol=1e-9,
                                    max_iter=100).fit(exact, labels)
    best = multinomial(regression.coef_.T, regression.intercept_, exact, targets, solution.l2)
    found = multinomial(*solution.parameters, exact, targets, solution.l2)
    assert solution.converged and found == pytest.approx(best, rel=1e-5), solution.l2


def test_the_path_runs_from_strong_to_weak_and_converges(problem):
  solutions = problem[3]
  assert [s.l2 for s in solutions] == sorted(L2_VALUES, reverse=True)
  assert all(s.converged and s.gap <= 1e-8 for s in solutions)
  objectives = [s.objective for s in solutions]
  assert objectives == sorted(objectives, reverse=True)


def test_several_labels_are_one_regression_each():
  inputs, labels, _ = load('digits')
  targets = np.stack([labels % 2, labels > 5, labels == 3], axis=1).astype(int)
  targets[:100, 1] = -1
  solution, = logistic_regression.path(inputs, targets, **OPTIONS | dict(kind='binary'))
  scores = logistic_regression.logits(solution.parameters, inputs)
  total = 0.
  for c in range(3):
    counts = targets[:, c] >= 0
    alone = LogisticRegression(C=1., solver='newton-cholesky', tol=1e-12).fit(
        inputs[counts], targets[counts, c])
    np.testing.assert_allclose(expit(scores[counts, c]),
                               alone.predict_proba(inputs[counts])[:, 1], atol=1e-2)
    weights, bias = alone.coef_[0], alone.intercept_[0]
    margin = inputs[counts] @ weights + bias
    total += np.sum(np.logaddexp(0, margin) - margin * targets[counts, c]) + weights @ weights / 2
  assert solution.objective == pytest.approx(total, rel=1e-6)


def test_float32_comes_near():
  inputs, _, targets = load('wine')
  values = [next(logistic_regression.path(inputs, targets, **OPTIONS | dict(
      dtype=dtype, tolerance=1e-5))).objective for dtype in ('float32', 'float64')]
  assert values[0] == pytest.approx(values[1], rel=1e-3)
  assert not jax.config.jax_enable_x64


@pytest.mark.parametrize('dtype, tolerance', [('float64', 1e-8), ('float32', 1e-5)])
def test_large_features_that_depend_on_each_other(dtype, tolerance):
  """Each twice: weights of half the size serve as well, at twice the penalty."""
  inputs, _, targets = load('wine')
  # Classes that cannot be told apart have a minimum at every penalty.
  targets = np.random.default_rng(0).permutation(targets)
  options = OPTIONS | dict(dtype=dtype, tolerance=tolerance)
  large = (1e6 * (inputs - inputs.mean(0)) / inputs.std(0)).astype(np.float32)
  twice, once = (list(logistic_regression.path(x, targets, **options | dict(l2_values=values)))
                 for x, values in ((np.hstack([large, large]), (2e8, 2e-4)), (large, (1e8, 1e-4))))
  assert all(s.converged for s in (*twice, *once))
  assert [s.objective for s in twice] == pytest.approx([s.objective for s in once], rel=1e-3)


@pytest.mark.parametrize('scale, classes, dtype', [(1e30, 2, 'float32'), (1., 1, 'float64')])
def test_what_has_no_finite_minimum_is_said(scale, classes, dtype):
  targets = np.eye(classes)[np.arange(4) % classes]
  with pytest.raises(InputError, match=f'no finite loss in {dtype}, with .* {classes} classes'):
    list(logistic_regression.path(scale * np.arange(8.).reshape(4, 2), targets, **OPTIONS | dict(
        dtype=dtype, l2_values=(1., .1))))


def test_it_ends_at_the_greatest_number_of_iterations():
  inputs, _, targets = load('digits')
  solution, = logistic_regression.path(inputs, targets, **OPTIONS | dict(max_iterations=3))
  assert (solution.iterations, solution.converged) == (3, False)
