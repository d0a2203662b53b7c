"""Multinomial logistic regression on cached features: the quick linear evaluation.

For standardised features x_i, labels y_i, weights W [D, C] and bias b [C] the
objective over N images is

    (1 / N) * sum_i cross_entropy(softmax(x_i W + b), y_i) + 0.5 * l2 * ||W||^2,

without a penalty on b. This is the objective of `logistic_regression` with l2 * N, where it is
minimised with the standardised training features on the default device in float64.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax import ranges
from byol_jax.errors import InputError
from byol_jax.evaluation import logistic_regression
from byol_jax.evaluation.contract import EvalContext, Facts, Features, FitContext, check_features
from byol_jax.evaluation.logistic_regression import Parameters
from byol_jax.evaluation.scoring import ACCURACY, accuracy, label_ranks
from byol_jax.input_pipeline.records import numbered

TITLE, METRICS, MAIN_METRIC = 'linear on features', ACCURACY, 'top1'
OPTIONS = dict(
    # Factors of |W|^2 / 2; one or more numbers above 0, each once
    l2_values=tuple(10.0 ** power for power in range(-7, 2)),
    tolerance=1e-7,  # estimated relative distance from the minimum; a number above 0
    max_iterations=500,  # of L-BFGS for each l2; a whole number of 1 or more
)
RANGES = dict(l2_values=ranges.GRID, tolerance=ranges.POSITIVE, max_iterations=ranges.whole(1))
PROTOCOL = (
    'Multinomial logistic regression by L-BFGS on cached features of images without augmentation, '
    'standardised by the mean and standard deviation of the training features; the l2 penalty is '
    'chosen by top-1 on validation images held out from training, the stronger of equals; no refit '
    "on training and validation images together. This quick form is not the paper's linear "
    'evaluation (appendix C.1), which trains with SGD on augmented images.')


class Candidate(NamedTuple):
  """The result for one value of l2."""

  l2: float
  validation_top1: float
  iterations: int
  converged: bool


class Fitted(NamedTuple):
  """The classifier of the chosen l2, and how it was chosen.

  mean, std: float32 [D], mean and standard deviation of the training features.
  candidates: one for each l2, from strong to weak; `chosen` is an index.
  """

  parameters: Parameters
  mean: np.ndarray
  std: np.ndarray
  candidates: tuple[Candidate, ...]
  chosen: int
  tolerance: float
  max_iterations: int
  train_images: int
  validation_images: int


def fit(context: FitContext, *, l2_values: Sequence[float], tolerance: float, max_iterations: int
        ) -> Fitted:
  """Fits one classifier per l2 on training images and keeps the best on held-out images.

  From the strongest l2 to the weakest, each fit starts at the previous solution.

  Args:
    context: labelled features float32 [N, D] of the training images and [M, D] of the held-out
      images, on which l2 is chosen and which are not used for training.
    l2_values: strengths of the penalty to try, each > 0, in any order.
    tolerance: value of `logistic_regression.Solution.gap` at which a fit ends; > 0.
    max_iterations: largest number of L-BFGS steps, after which a fit also ends.

  Raises:
    InputError: features are unusable, or there is only one class.
  """
  num_classes = context.num_classes
  train, validation = context.features('train'), context.features('validation')
  _check(train, validation, num_classes)
  mean, std = _moments(train.embeddings)
  inputs, held_out = (_standardise(part.embeddings, mean, std) for part in (train, validation))
  solutions, candidates = [], []
  path = logistic_regression.path(
      inputs, np.eye(num_classes)[train.labels], kind='multinomial',
      l2_values=tuple(l2 * len(inputs) for l2 in l2_values), tolerance=tolerance,
      max_iterations=max_iterations, dtype='float64')
  for solution, l2 in zip(path, sorted(l2_values, reverse=True)):
    top1 = _accuracy(solution.parameters, held_out, validation.labels)['top1']
    solutions.append(solution.parameters)
    candidates.append(Candidate(float(l2), top1, solution.iterations, solution.converged))
  chosen = int(np.argmax([candidate.validation_top1 for candidate in candidates]))
  return Fitted(solutions[chosen], mean, std, tuple(candidates), chosen, tolerance,
                max_iterations, len(train.labels), len(validation.labels))


def check(facts: Facts, **_) -> None:
  """Raises InputError if all training images have the same class, if their labels are known."""
  if facts.train.labels is not None:
    _check_classes(facts.train.labels, facts.class_names)


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """Accuracy of the classifier on the test images.

  Returns:
    Fractions in [0, 1] under 'top1' and, for more than five classes, 'top5'.

  Raises:
    InputError: the test features are unusable.
  """
  test = context.features('test')
  check_features('test', test, len(fitted.parameters.bias))
  inputs = _standardise(test.embeddings, fitted.mean, fitted.std)
  return _accuracy(fitted.parameters, inputs, test.labels)


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice of l2 and the numbers of images.

  'candidates' has a record for each l2, from strong to weak; 'converged' says
  that its fit ended by the tolerance. 'l2_at_edge' asks for a wider grid.
  """
  return dict(
      protocol=PROTOCOL, l2=fitted.candidates[fitted.chosen].l2,
      l2_at_edge=fitted.chosen in (0, len(fitted.candidates) - 1),
      candidates=[one._asdict() for one in fitted.candidates],
      tolerance=fitted.tolerance, max_iterations=fitted.max_iterations,
      num_classes=len(fitted.parameters.bias), train_images=fitted.train_images,
      validation_images=fitted.validation_images)


def _check(train: Features, validation: Features, num_classes: int) -> None:
  check_features('train', train, num_classes)
  check_features('validation', validation, num_classes)
  chex.assert_equal_shape_suffix([train.embeddings, validation.embeddings], 1)
  _check_classes(train.labels)


def _check_classes(labels: np.ndarray, class_names: Sequence[str] = ()) -> None:
  if labels.min() == labels.max():
    raise InputError(f'All {len(labels)} training images are of class '
                     f'{numbered(class_names, labels[0])}; a classifier needs at least 2 '
                     'classes.')


def _moments(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation float32 [D]; 1 for a dimension that is constant."""
  # Sums in float64, in pieces: in float32 the mean of a million equal values is not
  # that value, and all features in float64 would not fit into memory.
  pieces = [embeddings[start:start + 8192] for start in range(0, len(embeddings), 8192)]
  mean = sum(piece.sum(axis=0, dtype=np.float64) for piece in pieces) / len(embeddings)
  variance = sum(np.square(piece - mean).sum(axis=0) for piece in pieces) / len(embeddings)
  # A smaller deviation is below the resolution of float32 and would amplify rounding errors.
  std = np.where(np.sqrt(variance) <= 1e-6 * np.abs(mean), 1., np.sqrt(variance))
  return mean.astype(np.float32), std.astype(np.float32)


def _accuracy(parameters: Parameters, inputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  ranks = label_ranks(logistic_regression.logits(parameters, inputs), labels)
  return accuracy(ranks, len(parameters.bias))


def _standardise(embeddings: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
  return (embeddings - mean) / std
