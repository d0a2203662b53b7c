import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from byol_jax.evaluation.contract import Features
from byol_jax.evaluators import linear_features
from tests.evaluators import by_features

fit, evaluate = by_features.functions(linear_features)
OPTIONS = dict(l2_values=(1e-3, 1e-1, 1e-2), tolerance=1e-8, max_iterations=500)


def as_features(embeddings, labels):
  return Features(embeddings.astype(np.float32), labels.astype(np.int32),
                  np.arange(len(labels), dtype=np.int32))


def make_features(seed, count, num_classes):
  """Overlapping clusters, dimensions of very different scales, the last two constant."""
  random = np.random.default_rng(seed)
  centres = np.random.default_rng(9).normal(size=(num_classes, 10))
  labels = random.integers(0, num_classes, count)
  embeddings = centres[labels] + random.normal(size=(count, 10))
  embeddings = embeddings * np.logspace(-3, 3, 10) + np.linspace(-5, 5, 10)
  constant = np.tile([0., 123.4], (count, 1))
  return as_features(np.concatenate([embeddings, constant], axis=1), labels)


@pytest.fixture(scope='module')
def parts():
  return [make_features(seed, count, 7) for seed, count in enumerate((400, 150, 200))]


def standardise(train, part):
  """In float64 by the moments of `train`; constant dimensions become 0."""
  varied, train_varied = (x.embeddings[:, :10].astype(np.float64) for x in (part, train))
  scaled = (varied - train_varied.mean(axis=0)) / train_varied.std(axis=0)
  return np.concatenate([scaled, np.zeros((len(scaled), 2))], axis=1)


def objective(weights, bias, inputs, labels, l2):
  logits = inputs @ weights + bias
  losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
  return losses.mean() + 0.5 * l2 * np.sum(weights ** 2)


@pytest.mark.parametrize('l2_values', [(1e-4,), (1e-2,), (1.,), (10., 1e-4, 1., 1e-2)])
def test_against_scikit_learn(parts, l2_values):
  train, validation, test = parts
  fitted = fit(train, validation, num_classes=7, **{
      **OPTIONS, 'l2_values': l2_values})
  l2 = linear_features.describe(fitted)['l2']
  inputs = standardise(train, train)
  regression = LogisticRegression(C=1 / (l2 * 400), tol=1e-9, max_iter=5000)
  regression.fit(inputs, train.labels)
  best = objective(regression.coef_.T, regression.intercept_, inputs, train.labels, l2)
  found = objective(*fitted.parameters, inputs, train.labels, l2)
  assert found == pytest.approx(best, rel=1e-6)
  predicted = regression.predict(standardise(train, test)).astype(np.int32)
  agreement = evaluate(fitted, test._replace(labels=predicted))['top1']
  assert agreement >= 0.99
  expected = np.mean(predicted == test.labels)
  assert evaluate(fitted, test)['top1'] == pytest.approx(expected, abs=0.01)


def test_path_ends_where_a_cold_start_does(parts):
  train, validation, _ = parts
  options = dict(num_classes=7, tolerance=1e-8, max_iterations=500)
  path = fit(train, validation, l2_values=(1e-3, 1e-1, 1e-2), **options)
  for candidate in path.candidates:
    alone = fit(train, validation, l2_values=(candidate.l2,), **options)
    assert alone.candidates[0].validation_top1 == pytest.approx(candidate.validation_top1,
                                                                abs=0.01)
  assert [candidate.l2 for candidate in path.candidates] == [1e-1, 1e-2, 1e-3]


def test_the_choice_is_the_best_on_validation(parts):
  train, validation, _ = parts
  fitted = fit(train, validation, num_classes=7, **OPTIONS)
  top1 = [candidate.validation_top1 for candidate in fitted.candidates]
  described = linear_features.describe(fitted)
  assert described['l2'] == fitted.candidates[np.argmax(top1)].l2
  assert evaluate(fitted, validation)['top1'] == max(top1)


def test_validation_images_are_not_trained_on(parts):
  train, validation, test = parts
  options = dict(num_classes=7, **{**OPTIONS, 'l2_values': (1e-2,)})
  fitted, other = (fit(train, held_out, **options)
                   for held_out in (validation, test))
  np.testing.assert_array_equal(fitted.parameters.weights, other.parameters.weights)
  np.testing.assert_array_equal(fitted.mean, other.mean)


def make_noisy(random, count):
  """Three weak dimensions among sixty, and a third of the labels random."""
  labels = random.integers(0, 3, count)
  embeddings = random.normal(size=(count, 60)) + 2 * np.eye(3, 60)[labels]
  return as_features(embeddings,
                     np.where(random.random(count) < 1 / 3, random.integers(0, 3, count), labels))


def make_clean(random, count):
  """The class is a small difference of two dimensions that share a large nuisance."""
  labels = random.integers(0, 3, count)
  nuisance = random.normal(size=count)
  return as_features(np.stack([nuisance, nuisance + 0.1 * labels], axis=1), labels)


@pytest.mark.parametrize('make, strong', [(make_noisy, True), (make_clean, False)])
def test_noisy_labels_prefer_a_strong_penalty(make, strong):
  random = np.random.default_rng(0)
  train, validation = make(random, 150), make(random, 1000)
  fitted = fit(train, validation, num_classes=3, tolerance=1e-5,
                               max_iterations=500, l2_values=(1., 1e-1, 1e-3, 1e-4))
  assert (linear_features.describe(fitted)['l2'] >= 1e-1) == strong


def test_the_stronger_of_equals_is_chosen():
  easy = as_features(np.repeat(np.eye(3), 4, axis=0), np.repeat(np.arange(3), 4))
  fitted = fit(easy, easy, num_classes=3, **OPTIONS)
  described = linear_features.describe(fitted)
  assert [candidate['validation_top1'] for candidate in described['candidates']] == [1, 1, 1]
  assert described['l2'] == 1e-1
  assert described['l2_at_edge']
  assert evaluate(fitted, easy) == {'top1': 1}


def test_top5(parts):
  train, validation, test = parts
  fitted = fit(train, validation, num_classes=7, **OPTIONS)
  weights, bias = fitted.parameters
  order = np.argsort(-(standardise(train, test) @ weights + bias), axis=1)
  expected = (order[:, :5] == test.labels[:, None]).any(axis=1).mean()
  assert evaluate(fitted, test)['top5'] == pytest.approx(expected, abs=0.005)


def test_describe(parts):
  train, validation, _ = parts
  described = linear_features.describe(
      fit(train, validation, num_classes=7, **OPTIONS))
  assert "not the paper's linear evaluation (appendix C.1)" in described['protocol']
  assert 'no refit' in described['protocol']
  assert (described['train_images'], described['validation_images']) == (400, 150)
  assert described['l2_at_edge'] == (described['l2'] != 1e-2)
  assert all(candidate['converged'] for candidate in described['candidates'])


def test_stops_at_max_iterations(parts):
  train, validation, _ = parts
  fitted = fit(train, validation, num_classes=7, l2_values=(1e-3,),
                               tolerance=1e-6, max_iterations=3)
  candidate, = linear_features.describe(fitted)['candidates']
  assert (candidate['iterations'], candidate['converged']) == (3, False)


def test_labels_out_of_range_are_said(parts):
  with pytest.raises(ValueError, match=r'labels run from 0 to 6, outside 0 \.\.\. 5'):
    fit(parts[0], parts[1], **OPTIONS, num_classes=6)


def test_rejects_a_single_class(parts):
  train = parts[0]._replace(labels=np.full(400, 2, np.int32))
  with pytest.raises(ValueError, match='All 400 training images are of class 2'):
    fit(train, parts[1], num_classes=7, **OPTIONS)


def test_rejects_unlabelled_images(parts):
  train, validation, test = parts
  with pytest.raises(ValueError, match='400 train images have no labels'):
    fit(train._replace(labels=None), validation, num_classes=7, **OPTIONS)
  with pytest.raises(ValueError, match='150 validation images have no labels'):
    fit(train, validation._replace(labels=None), num_classes=7, **OPTIONS)
  fitted = fit(train, validation, num_classes=7, **OPTIONS)
  with pytest.raises(ValueError, match='200 test images have no labels'):
    evaluate(fitted, test._replace(labels=None))
