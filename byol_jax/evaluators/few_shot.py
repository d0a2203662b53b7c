"""A linear classifier on a few labelled images per class, in closed form.

For centred features X [n, D] of the chosen images and targets Y [n, C], 1 for the class and
-1 for the others, the ridge regression

    W = (X^T X + l2 I)^-1 X^T Y

is computed for every l2 from one singular value decomposition of X; the class with the largest
score is predicted. l2 is chosen on held-out images. The images are drawn several times, and
the mean over the draws is reported.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax import ranges
from byol_jax.errors import InputError
from byol_jax.evaluation.contract import EvalContext, Facts, Features, FitContext, check_features
from byol_jax.evaluation.scoring import accuracy, label_ranks
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import numbered

TITLE = 'few-shot'
METRICS = {'top1_{}_shots': 'top-1, {} per class'}
MAIN_METRIC = 'top1_{}_shots'
OPTIONS = dict(
    # Training images per class; one or more whole numbers of 1 or more, each once
    shots=(5, 10, 25),
    # Random draws of the images; their mean score is reported; a whole number of 1 or more
    draws=5,
    # One is chosen; one or more numbers above 0, each once
    l2_values=tuple(10.0 ** (power / 2) for power in range(-8, 13)),
    seed=0,  # of the draws; a whole number of 0 or more
)
RANGES = dict(
    shots=ranges.Several(ranges.whole(1), order='each once'), draws=ranges.whole(1),
    l2_values=ranges.GRID, seed=ranges.SEED)
PROTOCOL = (
    'Ridge regression in closed form to targets of 1 and -1 on features of a few training images '
    'per class without augmentation; l2 is chosen by top-1 on validation images, the stronger of '
    'equals, for each draw of the images. Mean and standard deviation over the draws.')


class Regression(NamedTuple):
  """mean: [D], mean of the features; weights: [D, C]; bias: [C]."""

  mean: np.ndarray
  weights: np.ndarray
  bias: np.ndarray


class Draw(NamedTuple):
  """One draw of `shots` images per class: the choice and the regression."""

  shots: int
  number: int
  l2: float
  validation_top1: float
  regression: Regression


class Fitted(NamedTuple):
  """All draws for all numbers of shots."""

  draws: tuple[Draw, ...]
  num_classes: int
  train_images: int
  validation_images: int


def fit(context: FitContext, *, shots: Sequence[int], draws: int, l2_values: Sequence[float],
        seed: int) -> Fitted:
  """Fits `draws` classifiers for each number of images per class.

  Args:
    context: labelled features [N, D] of the training images, from which the few images are drawn,
      and of the held-out images, on which l2 is chosen.
    shots: numbers of images per class; 5, 10 and 25 are common.
    draws: number of draws of the images, each selected by (seed, draw, class). In the same draw,
      a larger number of shots contains the smaller ones.
    l2_values: penalties to try, each > 0.
    seed: seed of the draws.

  Raises:
    InputError: a class has fewer images than shots.
  """
  num_classes = context.num_classes
  train, validation = context.features('train'), context.features('validation')
  for name, part in (('train', train), ('validation', validation)):
    check_features(name, part, num_classes)
  _check_shots(train.labels, num_classes, shots)
  found = []
  for number in range(draws):
    order = _order(train, num_classes, (seed, number))
    for count in shots:
      found.append(_draw(train, validation, order[:, :count].ravel(), count, number, num_classes,
                         l2_values))
  return Fitted(tuple(found), num_classes, len(train.labels), len(validation.labels))


def check(facts: Facts, *, shots: Sequence[int], **_) -> None:
  """Raises InputError if a class has fewer images than shots, as far as the counts are known."""
  images, num_classes, most = facts.train.images, facts.num_classes, max(shots, default=0)
  if facts.train.labels is not None and shots:
    _check_shots(facts.train.labels, num_classes, shots, facts.class_names)
  elif images < most * num_classes:
    raise InputError(f'{images} training images cannot give {most} shots of each of {num_classes} '
                     'classes; give fewer shots.')


def _check_shots(labels: np.ndarray, num_classes: int, shots: Sequence[int],
                 class_names: Sequence[str] = ()) -> None:
  counts = np.bincount(labels, minlength=num_classes)
  if counts.min() < max(shots):
    raise InputError(f'Class {numbered(class_names, counts.argmin())} has {counts.min()} '
                     f'training images, fewer than the {max(shots)} shots; give fewer shots.')


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """Mean top-1 on the test images over the draws, in [0, 1]: 'top1_5_shots', ...

  Raises:
    InputError: the test features are unusable.
  """
  test = context.features('test')
  check_features('test', test, fitted.num_classes)
  scores = {}
  for draw in fitted.draws:
    scores.setdefault(f'top1_{draw.shots}_shots', []).append(
        _top1(draw.regression, test, fitted.num_classes))
  means = {name: float(np.mean(values)) for name, values in scores.items()}
  spreads = {f'{name}_std': float(np.std(values, ddof=1)) for name, values in scores.items()
             if len(values) > 1}
  return means | spreads


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice of every draw and the numbers of images."""
  return dict(
      protocol=PROTOCOL, num_classes=fitted.num_classes, train_images=fitted.train_images,
      validation_images=fitted.validation_images,
      candidates=[{key: value for key, value in draw._asdict().items() if key != 'regression'}
                  for draw in fitted.draws])


def _order(train: Features, num_classes: int, key: tuple[int, ...]) -> np.ndarray:
  """Rows of `train`, [C, smallest class], in a random order of each class drawn with the key."""
  rows = []
  # Sorted by id, so that the order in which features were extracted does not matter.
  by_id = np.argsort(train.sample_id, kind='stable')
  for label in range(num_classes):
    own = by_id[train.labels[by_id] == label]
    rows.append(own[permutation(len(own), *key, label)])
  smallest = min(map(len, rows))
  return np.stack([row[:smallest] for row in rows])


def _draw(train: Features, validation: Features, rows: np.ndarray, shots: int, number: int,
          num_classes: int, l2_values: Sequence[float]) -> Draw:
  inputs = train.embeddings[rows].astype(np.float64)
  targets = 2 * np.eye(num_classes)[train.labels[rows]] - 1
  mean, bias = inputs.mean(axis=0), targets.mean(axis=0)
  left, singular, right = np.linalg.svd(inputs - mean, full_matrices=False)
  projected = left.T @ (targets - bias)
  best = None
  for l2 in sorted(l2_values, reverse=True):
    weights = right.T @ (projected * (singular / (singular ** 2 + l2))[:, None])
    regression = Regression(mean, weights, bias)
    top1 = _top1(regression, validation, num_classes)
    if best is None or top1 > best.validation_top1:
      best = Draw(shots, number, float(l2), top1, regression)
  return best


def _top1(regression: Regression, features: Features, num_classes: int) -> float:
  chex.assert_equal_shape_suffix([features.embeddings, regression.mean[None]], 1)
  scores = (features.embeddings - regression.mean) @ regression.weights + regression.bias
  return accuracy(label_ranks(scores, features.labels), num_classes)['top1']
