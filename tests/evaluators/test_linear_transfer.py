import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from byol_jax.errors import InputError
from byol_jax.evaluators import linear_transfer
from tests import digits
from tests.evaluators import by_features

fit, evaluate = by_features.functions(linear_transfer)
L2_VALUES = tuple(10. ** power for power in range(-2, 5))
OPTIONS = dict(num_classes=10, metric='top1', l2_values=L2_VALUES, tolerance=1e-8,
               max_iterations=500, dtype='float64')


@pytest.fixture(scope='module')
def parts():
  """Training, validation and test images."""
  return digits.split(300, 600)


def regression(l2, *parts):
  inputs, labels = (np.concatenate(arrays) for arrays in list(zip(*parts))[:2])
  return LogisticRegression(C=1 / l2, solver='newton-cholesky', tol=1e-10, max_iter=500).fit(
      inputs.astype(np.float64), labels)


def test_l2_is_chosen_on_validation_and_both_are_fitted_with_it(parts):
  train, validation, test = parts
  fitted = fit(train, validation, **OPTIONS)
  described = linear_transfer.describe(fitted)
  expected = [regression(l2, train).score(validation.embeddings, validation.labels)
              for l2 in sorted(L2_VALUES, reverse=True)]
  assert [c['validation'] for c in described['candidates']] == pytest.approx(expected)
  assert described['l2'] == sorted(L2_VALUES, reverse=True)[int(np.argmax(expected))]
  both = regression(described['l2'], train, validation)
  found = evaluate(fitted, test)
  assert found['top1'] == pytest.approx(both.score(test.embeddings, test.labels), abs=1e-3)
  assert found.keys() == {'top1', 'top5', 'mean_per_class'}
  assert described['refit_converged'] and all(c['converged'] for c in described['candidates'])
  assert described['differs_from_paper'] == [
      '7 l2 values from 0.01 to 10000 (45 from 1e-06 to 100000)']


def test_the_choice_is_by_the_metric(parts):
  train, validation, _ = parts
  fitted = fit(train, validation, **OPTIONS | dict(metric='mean_per_class'))
  expected = [balanced_accuracy_score(
      validation.labels, regression(l2, train).predict(validation.embeddings))
              for l2 in sorted(L2_VALUES, reverse=True)]
  assert [c.validation for c in fitted.candidates] == pytest.approx(expected)
  assert fitted.chosen == int(np.argmax(expected))


def test_images_with_several_labels(parts):
  several = [part._replace(labels=np.stack(
      [part.labels % 2, part.labels > 5, part.labels < 3], 1).astype(np.int32)) for part in parts]
  several[0].labels[:20, 2] = -1
  fitted = fit(*several[:2], **OPTIONS | dict(num_classes=3, metric='map_voc07'))
  found = evaluate(fitted, several[2])
  assert found.keys() == {'map_voc07'} and .85 < found['map_voc07'] < 1


def test_the_papers_grid_differs_in_nothing_but_what_did_not_converge(parts):
  train, validation, _ = parts
  fitted = fit(train, validation, **OPTIONS | dict(
      l2_values=tuple(np.geomspace(1e-6, 1e5, 45)), tolerance=1e-2, max_iterations=1))
  assert linear_transfer.describe(fitted)['differs_from_paper'] == [
      '45 of 45 fits ended before their tolerance (converged)',
      'the last fit ended before its tolerance (converged)']


def test_a_metric_of_other_labels_is_said(parts):
  with pytest.raises(InputError, match='one label per image; set metric to top1 or mean_per_cl'):
    fit(*parts[:2], **OPTIONS | dict(metric='map_voc07'))


@pytest.mark.parametrize('change, message', [
    (lambda part: part._replace(labels=np.where(part.labels == 3, 4, part.labels)),
     '1 of 10 classes have no image among the .* training images: 3'),
    (lambda part: part._replace(labels=None), 'have no labels'),
    (lambda part: part._replace(embeddings=part.embeddings * np.nan), 'not finite')])
def test_unusable_training_images_are_refused(parts, change, message):
  with pytest.raises(InputError, match=message):
    fit(change(parts[0]), parts[1], **OPTIONS)
