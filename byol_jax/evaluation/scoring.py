"""Metrics of classifiers: accuracy, and the metrics of the paper's transfer results.

The latter are described in appendix D.1, Table 10.
"""

from collections.abc import Sequence

import chex
import numpy as np

from byol_jax.errors import InputError
from byol_jax.evaluation.contract import Facts, check_classes
from byol_jax.input_pipeline.records import numbered

# METRICS of an evaluator that returns what `accuracy` does.
ACCURACY = dict(top1='top-1', top5='top-5')
# Metrics that can be used for a choice.
METRICS = ('top1', 'mean_per_class', 'map_voc07')
# Names in tables of everything that `score` returns.
TITLES = dict(ACCURACY, mean_per_class='mean per class', map_voc07='VOC07 mAP')


def score(scores: np.ndarray, labels: np.ndarray, metric: str) -> dict[str, float]:
  """Computes all metrics that these labels allow, including `metric`.

  Args:
    scores: [N, C], finite.
    labels: int [N] in 0 ... C - 1 for 'top1' and 'mean_per_class'; int [N, C] for
      'map_voc07', 1 if a class is present, 0 if it is absent, -1 if it is ignored.
    metric: one of METRICS.

  Returns:
    Fractions in [0, 1] under 'top1', 'mean_per_class' and, for more than five classes,
    'top5'; or under 'map_voc07'.

  Raises:
    InputError: the labels are of the other kind.
  """
  check_metric(metric, labels.ndim == 2)
  chex.assert_rank(scores, 2)
  if labels.ndim == 2:
    return dict(map_voc07=voc07_mean_average_precision(scores, labels))
  ranks = label_ranks(scores, labels)
  return dict(accuracy(ranks, scores.shape[1]), mean_per_class=mean_per_class(ranks, labels))


def check(facts: Facts, *, metric: str, **_) -> None:
  """The `check` of evaluators that choose by a metric and train a classifier for all classes.

  Raises:
    InputError: the metric is for another kind of labels, a class has no training image, or, with
      several labels per image, a class has no held-out or test image.
  """
  check_metric(metric, facts.multi_label)
  if facts.train.labels is not None:
    check_classes(facts.train.labels, facts.num_classes, facts.class_names)
  for part in (facts.validation, facts.test):
    if facts.multi_label and part is not None and part.labels is not None:
      _check_present(part.labels, facts.class_names)


def check_metric(metric: str, several_labels: bool) -> None:
  """Raises InputError unless the metric is for images with one, or with several, labels."""
  if several_labels != (metric == 'map_voc07'):
    kind = 'several labels per image' if several_labels else 'one label per image'
    raise InputError(f'metric is {metric!r}, but the data set has {kind}; set metric to '
                     f'{"map_voc07" if several_labels else "top1 or mean_per_class"}.')


def _check_present(labels: np.ndarray, class_names: Sequence[str] = ()) -> None:
  empty = np.flatnonzero(~(labels > 0).any(axis=0))
  if len(empty):
    raise InputError(f'None of the {len(labels)} images has class '
                     f'{numbered(class_names, empty[0])}, which therefore has no average '
                     'precision; check the split.')


def voc07_mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
  """Mean over the classes of the 11-point interpolated average precision (VOC2007).

  For each class, it is the mean over the recalls 0, 0.1, ..., 1 of the highest precision at that
  recall or above. Images with equal scores keep their order.

  Args:
    scores: [N, C].
    labels: int [N, C] in -1, 0, 1.

  Raises:
    InputError: a class has no image.
  """
  chex.assert_equal_shape([scores, labels])
  _check_present(labels)
  found = []
  for of_class, present in zip(scores.T, labels.T):
    counting = present >= 0
    ordered = present[counting][np.argsort(-of_class[counting], kind='stable')]
    hits = np.cumsum(ordered)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / hits[-1]
    # Rounded, because a recall of 3 / 10 can differ from the threshold 0.3 in floating point.
    reached = [np.round(recall, 9) >= threshold for threshold in np.round(np.arange(11) / 10, 9)]
    found.append(np.mean([precision[at].max() for at in reached]))
  return float(np.mean(found))


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The number of classes that are ranked above the true class; 0 is a correct prediction.

  Classes are ranked by descending score; if scores are equal, the lower class comes first.
  Scores that are not a number never make a prediction correct.

  Args:
    scores: float [N, C].
    labels: int [N] in 0 ... C - 1.

  Returns:
    int [N] in 0 ... C - 1; C if the score of the true class is not a number.
  """
  chex.assert_shape(labels, scores.shape[:1])
  true_score = np.take_along_axis(scores, labels[:, None], axis=1)
  behind_at_ties = np.arange(scores.shape[1]) >= labels[:, None]
  not_above = (scores < true_score) | ((scores == true_score) & behind_at_ties)
  return scores.shape[1] - np.count_nonzero(not_above, axis=1)


def accuracy(ranks: np.ndarray, num_classes: int) -> dict[str, float]:
  """Top-1 and, for more than five classes, top-5 accuracy.

  Args:
    ranks: int [N] from `label_ranks`.
    num_classes: classes in the data set.

  Returns:
    Fractions in [0, 1] under 'top1' and 'top5'.
  """
  chex.assert_rank(ranks, 1)
  sizes = (1, 5) if num_classes > 5 else (1,)
  return {f'top{size}': float(np.mean(ranks < size)) for size in sizes}


def mean_per_class(ranks: np.ndarray, labels: np.ndarray) -> float:
  """The mean of the top-1 accuracies of the classes that occur in `labels`, in [0, 1].

  Args:
    ranks: int [N] from `label_ranks`.
    labels: int [N], the true classes.
  """
  chex.assert_equal_shape([ranks, labels])
  return float(np.mean([np.mean(ranks[labels == label] < 1) for label in np.unique(labels)]))
