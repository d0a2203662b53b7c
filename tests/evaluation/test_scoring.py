import re

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from byol_jax.errors import InputError
from byol_jax.evaluation import scoring
from byol_jax.evaluation.contract import Facts
from byol_jax.evaluation.scoring import accuracy, label_ranks
from byol_jax.input_pipeline.records import Known


def test_accuracy_against_sorting():
  random = np.random.default_rng(0)
  # Few distinct scores, so that there are ties.
  scores = random.integers(0, 4, (200, 8)).astype(np.float32)
  labels = random.integers(0, 8, 200)
  order = np.argsort(-scores, axis=1, kind='stable')
  expected = {f'top{n}': np.mean((order[:, :n] == labels[:, None]).any(axis=1)) for n in (1, 5)}
  assert accuracy(label_ranks(scores, labels), 8) == pytest.approx(expected)


def test_a_score_that_is_not_a_number_is_never_correct():
  scores = np.array([[np.nan, np.nan, np.nan], [np.nan, 1, 0], [0, 1, np.nan]])
  np.testing.assert_array_equal(label_ranks(scores, np.array([0, 0, 1])), [3, 3, 1])


@pytest.mark.parametrize('num_classes, names', [(5, {'top1'}), (6, {'top1', 'top5'})])
def test_top5_needs_more_than_five_classes(num_classes, names):
  assert accuracy(np.zeros(3, np.int32), num_classes).keys() == names


def test_mean_per_class_is_the_balanced_accuracy():
  random = np.random.default_rng(0)
  labels = random.integers(0, 7, 500)
  labels[labels == 4] = 2
  predicted = np.where(random.random(500) < .6, labels, random.integers(0, 7, 500))
  found = scoring.score(np.eye(7)[predicted], labels, 'mean_per_class')
  assert found['mean_per_class'] == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_all_metrics_of_single_labels():
  scores = np.array([[3., 2, 1, 0, 0, 0], [0, 3, 2, 1, 0, 0], [5, 4, 3, 2, 1, 0],
                     [0, 0, 9, 0, 0, 0]])
  found = scoring.score(scores, np.array([0, 2, 5, 2]), 'mean_per_class')
  assert found == dict(top1=.5, top5=.75, mean_per_class=pytest.approx((1 + .5 + 0) / 3))


# (scores of one class, present, average precision by hand)
PRECISION = [
    # Precision 1 up to recall 1/2 (recalls 0 to .5), then 2/3 (.6 to 1).
    ([.9, .8, .7, .1], [1, 0, 1, 0], (6 * 1 + 5 * 2 / 3) / 11),
    ([.9, .8, .7, .1], [1, 1, 0, 0], 1.),
    # The only one is last of four.
    ([.9, .8, .7, .1], [0, 0, 0, 1], .25),
    # What is only difficult counts neither way: without it the first case.
    ([.95, .9, .8, .7, .1], [-1, 1, 0, 1, 0], (6 * 1 + 5 * 2 / 3) / 11),
    # Ten present: recall is exact at every tenth; the one wrong is fourth.
    (np.linspace(1, 0, 11), [1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1], (4 * 1 + 7 * 10 / 11) / 11)]


@pytest.mark.parametrize('scores, present, expected', PRECISION)
def test_average_precision_by_hand(scores, present, expected):
  found = scoring.score(np.array(scores)[:, None], np.array(present)[:, None], 'map_voc07')
  assert found == dict(map_voc07=pytest.approx(expected))


def test_the_mean_is_over_the_classes():
  (first, present, one), (second, other, two) = PRECISION[0], PRECISION[2]
  found = scoring.voc07_mean_average_precision(
      np.stack([first, second], 1), np.stack([present, other], 1))
  assert found == pytest.approx((one + two) / 2)


@pytest.mark.parametrize('labels, metric, message', [
    (np.zeros(3, int), 'map_voc07', 'one label per image; set metric to top1 or mean_per_class'),
    (np.zeros((3, 2), int), 'top1', 'several labels per image; set metric to map_voc07'),
    (np.array([[1, 0], [0, -1], [1, 0]]), 'map_voc07', 'None of the 3 images has class 1')])
def test_labels_and_metrics_that_do_not_fit(labels, metric, message):
  with pytest.raises(InputError, match=message):
    scoring.score(np.zeros((3, 2)), labels, metric)


def facts(train, validation, test=None):
  known = lambda labels: Known(len(labels), np.array(labels))
  return Facts(known(train), known(validation), None if test is None else known(test), 2, True,
               lambda: 4)


def test_facts_of_several_labels_are_checked_for_every_split_that_is_known():
  both, second = [[1, 0], [0, 1]], [[-1, 1], [0, 1]]
  scoring.check(facts(both, both), metric='map_voc07')
  for found, message in (
      (facts(second, both), '1 of 2 classes have no image among the 2 training images: 0'),
      (facts(both, second), 'None of the 2 images has class 0, which therefore has no average'),
      (facts(both, both, second), 'None of the 2 images has class 0')):
    with pytest.raises(InputError, match=message):
      scoring.check(found, metric='map_voc07')
    called = found._replace(class_names=('cat', 'dog'))
    with pytest.raises(InputError, match=re.sub(r'\b0\b', r"0 \\('cat'\\)", message)):
      scoring.check(called, metric='map_voc07')
  with pytest.raises(InputError, match="metric is 'top1', but the data set has several labels"):
    scoring.check(facts(both, both), metric='top1')
