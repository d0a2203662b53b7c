import numpy as np
import pytest
from sklearn.linear_model import Ridge

from byol_jax.errors import InputError
from byol_jax.evaluation.contract import Features
from byol_jax.evaluators import few_shot
from tests import digits
from tests.evaluators import by_features

fit, evaluate = by_features.functions(few_shot)
OPTIONS = dict(num_classes=10, shots=(5, 10), draws=3, l2_values=(1., 100., 1e4), seed=0)


@pytest.fixture(scope='module')
def parts():
  return digits.split(500, 800)


@pytest.fixture(scope='module')
def fitted(parts):
  return fit(*parts[:2], **OPTIONS)


def test_the_closed_form_is_ridge_regression_on_balanced_images(parts, fitted):
  train, validation, test = parts
  scores = []
  for draw in (draw for draw in fitted.draws if draw.shots == 5):
    rows = few_shot._order(train, 10, (0, draw.number))[:, :5]
    np.testing.assert_array_equal(train.labels[rows], np.repeat(np.arange(10), 5).reshape(10, 5))
    targets = 2 * np.eye(10)[train.labels[rows.ravel()]] - 1
    accuracies = {}
    for l2 in sorted(OPTIONS['l2_values'], reverse=True):
      ridge = Ridge(alpha=l2).fit(train.embeddings[rows.ravel()].astype(np.float64), targets)
      hit = lambda part, ridge=ridge: np.mean(
          ridge.predict(part.embeddings).argmax(1) == part.labels)
      accuracies[l2] = hit(validation), hit(test)
    chosen = max(accuracies, key=lambda l2: accuracies[l2][0])
    assert draw.l2 == chosen
    assert draw.validation_top1 == pytest.approx(accuracies[chosen][0])
    scores.append(accuracies[chosen][1])
  found = evaluate(fitted, test)
  assert found['top1_5_shots'] == pytest.approx(np.mean(scores))
  assert found['top1_5_shots_std'] == pytest.approx(np.std(scores, ddof=1))
  assert found['top1_10_shots'] > found['top1_5_shots'] > .5


def test_draws_differ_and_do_not_depend_on_the_order_of_the_features(parts, fitted):
  train, validation, _ = parts
  shuffled = Features(*(array[::-1] for array in train))
  again = fit(shuffled, validation, **OPTIONS)
  for one, other in zip(fitted.draws, again.draws):
    np.testing.assert_allclose(one.regression.weights, other.regression.weights, atol=1e-8)
  first, second = (draw.regression.weights for draw in fitted.draws[::2][:2])
  assert np.abs(first - second).max() > 1e-3


def test_fewer_images_than_shots_are_an_error(parts):
  train, validation, _ = parts
  few = np.flatnonzero(train.labels == 7)[4:]
  train = Features(*(np.delete(array, few, axis=0) for array in train))
  with pytest.raises(InputError, match='Class 7 has 4 training images, fewer than the 10 shots'):
    fit(train, validation, **OPTIONS)
