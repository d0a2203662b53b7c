import json

import numpy as np
import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuning, scoring
from byol_jax.evaluators import fine_tuned_transfer
from tests.evaluation import fine_tuning_parts as parts

RATES, DECAYS, STEPS = (32., 2.), (0., .4), 4
OPTIONS = dict(learning_rates=RATES, weight_decays=DECAYS, steps=STEPS,
               batch_size=parts.BATCH, momentum=parts.MOMENTUM, metric='top1', view=parts.WHOLE,
               seed=parts.SEED)
TRAIN, TOGETHER, TEST = (parts.make_split(seed, count) for seed, count in ((0, 24), (1, 36),
                                                                           (2, 90)))


def fit(folder, train=TRAIN, together=TOGETHER, validation=TEST, num_classes=parts.CLASSES,
        **changes):
  images = parts.make_images(train, lambda: parts.make_images(together))
  return fine_tuned_transfer.fit(
      parts.fit_context(images, validation, folder, num_classes), **OPTIONS | changes)


def test_the_decay_of_the_statistics_is_that_of_the_paper():
  # 176 steps per epoch of CIFAR-10, and sets of fewer than 100 steps.
  assert fine_tuned_transfer.batch_norm_decay(45_000, 256) == pytest.approx(1 - 10 / 175.78125)
  assert fine_tuned_transfer.batch_norm_decay(256 * 100, 256) == pytest.approx(.9)
  assert fine_tuned_transfer.batch_norm_decay(256 * 200, 256) == pytest.approx(.95)
  assert fine_tuned_transfer.batch_norm_decay(1020, 256) == .9


def test_the_chosen_point_is_trained_on_all_images(tmp_path):
  """Its weight decay is divided by its learning rate."""
  fitted = fit(tmp_path)
  described = fine_tuned_transfer.describe(fitted)
  assert [(c['learning_rate'], c['weight_decay']) for c in described['candidates']] == [
      (rate, decay) for rate in RATES for decay in DECAYS]
  scores = [candidate['validation']['top1'] for candidate in described['candidates']]
  assert fitted.chosen == int(np.argmax(scores)) and len(set(scores)) > 1
  rate, decay = (described['chosen'][key] for key in ('learning_rate', 'weight_decay'))
  parts.assert_trained(fitted.weights, parts.reference(
      TOGETHER, rate=rate / 32, decay=decay / rate, steps=STEPS))
  assert described['train_images'] == 36 and described['validation_images'] == 90
  assert described['batch_norm_decay'] == .9


def test_weight_decays_are_tried_as_they_are_described(tmp_path):
  fitted = fit(tmp_path, learning_rates=RATES[:1], weight_decays=DECAYS[1:],
               together=TRAIN)
  parts.assert_trained(fitted.weights, parts.reference(
      TRAIN, rate=1., decay=.4 / 32, steps=STEPS))


def test_statistics_of_a_large_set_decay_slower(tmp_path):
  """200 steps per epoch."""
  large = parts.make_split(3, 200 * parts.BATCH)
  fitted = fit(tmp_path, learning_rates=RATES[:1], weight_decays=(0.,),
               together=large)
  parts.assert_trained(fitted.weights, parts.reference(
      large, rate=1., steps=STEPS, bn_decay=.95))


def test_the_metric_chooses(tmp_path):
  """A class of one image weighs as much as one of sixty in the mean of the classes."""
  random = np.random.default_rng(5)
  labels = np.where(random.random(60) < .8, 0, TEST.labels[:60]).astype(np.int32)
  validation = TEST._replace(images=TEST.images[:60], labels=labels,
                             sample_id=TEST.sample_id[:60])
  for metric in ('top1', 'mean_per_class'):
    fitted = fit(tmp_path, metric=metric, validation=validation)
    scores = [candidate.validation[metric] for candidate in fitted.candidates]
    assert fitted.chosen == int(np.argmax(scores))
    found = fine_tuned_transfer.evaluate(fitted, parts.eval_context(validation))
    assert set(found) == {'top1', 'mean_per_class'}
    assert fine_tuned_transfer.describe(fitted)['metric'] == metric


def test_images_with_several_labels_are_scored_by_average_precision(tmp_path):
  train, together, test = map(parts.with_several_labels, (TRAIN, TOGETHER, TEST))
  fitted = fit(tmp_path, train, together, test, metric='map_voc07')

  def precision(arrays):
    w, offset, v, b, _ = arrays
    return scoring.voc07_mean_average_precision(
        (parts.pooled(test.images / 255.) @ w + offset) @ v + b, test.labels)

  points = [(rate, decay) for rate in RATES for decay in DECAYS]
  expected = [precision(parts.reference(train, rate=rate / 32, decay=decay / rate, steps=STEPS))
              for rate, decay in points]
  found = [candidate.validation['map_voc07'] for candidate in fitted.candidates]
  np.testing.assert_allclose(found, expected, rtol=1e-3)
  assert len(set(found)) > 1 and fitted.chosen == int(np.argmax(found))
  rate, decay = points[fitted.chosen]
  last = parts.reference(together, rate=rate / 32, decay=decay / rate, steps=STEPS)
  parts.assert_trained(fitted.weights, last)
  scores = fine_tuned_transfer.evaluate(fitted, parts.eval_context(test))
  assert scores == dict(map_voc07=pytest.approx(precision(last), rel=1e-3))


def test_a_rerun_trains_the_last_run_alone(tmp_path, monkeypatch):
  first = fit(tmp_path)
  train, calls = fine_tuning.train, []
  monkeypatch.setattr(fine_tuning, 'train', lambda *args, **kwargs: (
      calls.append(kwargs['weight_decay']), train(*args, **kwargs))[1])
  again = fit(tmp_path, metric='mean_per_class')
  assert len(calls) == 1
  assert again.candidates == first.candidates
  calls.clear()
  fit(tmp_path, steps=3)
  assert len(calls) == 5


def test_describe_is_json_and_says_what_differs(tmp_path):
  fitted = fit(tmp_path, learning_rates=fine_tuned_transfer.PAPER['learning_rates'][-1:],
               weight_decays=(0.,))
  described = json.loads(json.dumps(fine_tuned_transfer.describe(fitted)))
  assert 'appendix D.3 of the paper' in described['protocol']
  assert 'learning_rates 0.1 (0.0001, 0.0003162, ' in described['differs_from_paper'][0]


@pytest.mark.parametrize('changes, message', [
    (dict(num_classes=5), '2 of 5 classes have no image among the 24 training images: 3, 4'),
    (dict(learning_rates=(1e30,)), 'All 2 points of an_evaluator have diverged')])
def test_options_that_cannot_be(tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    fit(tmp_path, **changes)


def test_a_last_run_that_diverges_is_an_error(tmp_path, monkeypatch):
  train = fine_tuning.train
  fit(tmp_path)
  monkeypatch.setattr(fine_tuning, 'train', lambda *args, **kwargs: (
      train(*args, **kwargs) and None))
  with pytest.raises(InputError, match='has diverged on the 36 training and validation images'):
    fit(tmp_path)
