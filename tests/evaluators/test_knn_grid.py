import numpy as np
import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation.contract import Features
from byol_jax.evaluators import knn, knn_grid
from tests.evaluators import by_features

fit, evaluate = by_features.functions(knn_grid)
fit_one, evaluate_one = by_features.functions(knn)
GRID = dict(k_values=(1, 5, 20), temperatures=(.05, 1.))


def make(seed, count):
  random = np.random.default_rng(seed)
  labels = random.integers(0, 7, count).astype(np.int32)
  centres = np.random.default_rng(9).normal(size=(7, 6))
  embeddings = (centres[labels] + random.normal(size=(count, 6))).astype(np.float32)
  return Features(embeddings, labels, np.arange(count, dtype=np.int32))


def test_the_pair_of_the_best_validation_score_is_taken():
  train, validation, test = (make(seed, count) for seed, count in enumerate((150, 80, 90)))
  fitted = fit(train, validation, num_classes=7, **GRID)
  expected = []
  for k in GRID['k_values']:
    for temperature in GRID['temperatures']:
      alone = fit_one(train, validation, num_classes=7, k=k, temperature=temperature)
      expected.append((evaluate_one(alone, validation)['top1'], evaluate_one(alone, test)))
  described = knn_grid.describe(fitted)
  assert [c['validation_top1'] for c in described['candidates']] == [top1 for top1, _ in expected]
  best = int(np.argmax([top1 for top1, _ in expected]))
  assert evaluate(fitted, test) == expected[best][1]
  assert (described['k'], described['temperature']) == tuple(
      described['candidates'][best][name] for name in ('k', 'temperature'))
  assert len({top1 for top1, _ in expected}) > 1


def test_more_neighbours_than_images_are_left_out():
  train, validation = make(0, 10), make(1, 5)
  grid = dict(GRID, k_values=np.array(GRID['k_values']))
  candidates = fit(train, validation, num_classes=7, **grid).candidates
  assert {k for k, _, _ in candidates} == {1, 5}


def test_the_bank_is_looked_through_once(monkeypatch):
  check, seen = knn.check_features, []
  monkeypatch.setattr(knn, 'check_features', lambda name, *args: (
      seen.append(name), check(name, *args)))
  fit(make(0, 30), make(1, 5), num_classes=7, **GRID)
  assert seen.count('train') == 1


def test_a_grid_of_more_neighbours_than_images_is_refused():
  with pytest.raises(InputError, match=r'is \(11,\), but there are 10 training images; give at'):
    fit(make(0, 10), make(1, 5), num_classes=7, **GRID | dict(k_values=(11,)))
