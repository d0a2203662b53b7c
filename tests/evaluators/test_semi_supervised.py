import json

import numpy as np
import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuning
from byol_jax.evaluators import semi_supervised
from tests.evaluation import fine_tuning_parts as parts

RATES, EPOCHS = (2., 32.), (1., 2.5)
OPTIONS = dict(learning_rates=RATES, epochs=EPOCHS,
               batch_size=parts.BATCH, momentum=parts.MOMENTUM, batch_norm_decay=.7,
               view=parts.WHOLE, seed=parts.SEED, max_steps=0)
TRAIN, VALIDATION, TEST = (parts.make_split(seed, count) for seed, count in ((0, 24), (1, 60),
                                                                             (2, 90)))


def fit(folder, num_classes=parts.CLASSES, **changes):
  return semi_supervised.fit(
      parts.fit_context(parts.make_images(TRAIN), VALIDATION, folder, num_classes),
      **OPTIONS | changes)


def top1(arrays, split):
  """Of the weights of `parts.reference`."""
  w, offset, v, b, _ = arrays
  logits = (parts.pooled(split.images / 255.) @ w + offset) @ v + b
  return np.mean(np.argmax(logits, axis=1) == split.labels)


@pytest.fixture(scope='module')
def references():
  """The weights of every point, in the order of the grid: 3 and 7 steps of 24 images."""
  return [parts.reference(TRAIN, rate=rate / 32, steps=steps, bn_decay=.7)
          for steps in (3, 7) for rate in RATES]


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
  return fit(tmp_path_factory.mktemp('grid'))


def test_the_best_on_the_validation_images_is_chosen(fitted, references):
  expected = [top1(arrays, VALIDATION) for arrays in references]
  described = semi_supervised.describe(fitted)
  found = [candidate['validation']['top1'] for candidate in described['candidates']]
  np.testing.assert_allclose(found, expected)
  assert len(set(expected)) > 1
  best = int(np.argmax(expected))
  assert described['chosen'] == dict(learning_rate=RATES[best % 2], epochs=EPOCHS[best // 2])
  parts.assert_trained(fitted.weights, references[best])
  scores = semi_supervised.evaluate(fitted, parts.eval_context(TEST))
  assert scores['top1'] == pytest.approx(top1(references[best], TEST))
  # The classes are of equal size.
  assert scores['mean_per_class'] == pytest.approx(scores['top1'])


def test_a_finished_grid_trains_the_chosen_point_alone(fitted, tmp_path, monkeypatch):
  fit(tmp_path)
  train, calls = fine_tuning.train, []
  monkeypatch.setattr(fine_tuning, 'train', lambda *args, **kwargs: (
      calls.append(kwargs['max_steps']), train(*args, **kwargs))[1])
  again = fit(tmp_path)
  assert len(calls) == 1 and again.chosen == fitted.chosen
  for one, other in zip(parts.trained(again.weights), parts.trained(fitted.weights)):
    np.testing.assert_array_equal(one, other)
  # One rate more makes two points more; another seed makes another grid.
  calls.clear()
  fit(tmp_path, learning_rates=(*RATES, .1))
  assert len(calls) == 3
  calls.clear()
  fit(tmp_path, seed=4, epochs=EPOCHS[:1])
  assert len(calls) == 2


def test_a_trial_stops_after_its_steps(tmp_path):
  fitted = fit(tmp_path, max_steps=2, learning_rates=RATES[1:], epochs=EPOCHS[1:])
  parts.assert_trained(fitted.weights, parts.reference(TRAIN, rate=1., steps=2, bn_decay=.7))


def test_describe_is_json_and_says_what_differs(fitted):
  described = json.loads(json.dumps(semi_supervised.describe(fitted)))
  assert 'appendix C.1 of the paper' in described['protocol']
  assert 'per 256 images' in described['protocol'] and 'paper is silent' in described['protocol']
  assert described['differs_from_paper'] == [
      'learning_rates 2, 32 (0.01, 0.02, 0.05, 0.1, 0.005)', 'epochs 1, 2.5 (30, 50)',
      'batch_size 8 (1024)']
  assert (described['train_images'], described['validation_images']) == (24, 60)
  assert described['metric'] == 'top1' and described['chosen_at_edge'] == []


@pytest.mark.parametrize('changes, message', [
    (dict(num_classes=4), '1 of 4 classes have no image among the 24 training images: 3'),
    (dict(learning_rates=(1e30,), epochs=(9.,)), 'The only point of an_evaluator has diverged')])
def test_options_that_cannot_be(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    fit(tmp_path, **changes)
