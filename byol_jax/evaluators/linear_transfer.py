"""Linear evaluation on other data sets, as in the paper (appendix D.2).

Multinomial logistic regression is fitted with L-BFGS to frozen features of images without
augmentation; if an image can have several labels, it is one logistic regression per class. The
l2 penalty is chosen on the held-out images; then training and held-out images are fitted
together with this penalty.
"""

from collections.abc import Sequence
import time
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax import ranges
from byol_jax.distributed import parallel
from byol_jax.evaluation import logistic_regression, scoring
from byol_jax.evaluation.contract import (
  EvalContext,
  Features,
  FitContext,
  check_classes,
  check_features,
)
from byol_jax.evaluation.logistic_regression import Parameters

TITLE, METRICS, MAIN_METRIC = 'linear (D.2)', scoring.TITLES, 'top1'
IN_TABLE = ('top1',)
REFITS = True
SEVERAL_LABELS = True
OPTIONS = dict(
    # 45 from 1e-6 to 1e5, log-spaced, for a loss summed over the images; one is chosen (D.2);
    # one or more numbers above 0, each once
    l2_values=tuple(10.0 ** (power / 4) for power in range(-24, 21)),
    # Metric for the choice (D.1, Table 10); 'top1', 'mean_per_class' or 'map_voc07'
    metric='top1',
    tolerance=1e-7,  # estimated relative distance from the minimum; a number above 0
    max_iterations=1000,  # of L-BFGS for each penalty; a whole number of 1 or more
    # Precision of L-BFGS. A TPU emulates float64 in software: use 'float32' with tolerance
    # 1e-5 there; 'float32' or 'float64'
    dtype='float64',
)
RANGES = dict(
    l2_values=ranges.GRID, metric=ranges.OneOf(scoring.METRICS), tolerance=ranges.POSITIVE,
    max_iterations=ranges.whole(1), dtype=ranges.OneOf(('float32', 'float64')))
PROTOCOL = (
    'Linear transfer as in appendix D.2 of the paper: multinomial logistic regression by L-BFGS '
    '(of several labels: one logistic regression per class) on features of images without '
    'augmentation, as they are. The loss is a sum over the images plus l2 / 2 times the squared '
    'norm of the weights, without a penalty on the bias; L-BFGS ends where the squared gradient, '
    'in coordinates that make the Hessian near the identity, is below the tolerance times the '
    'loss. l2 is chosen on validation images, the stronger of equals; training and validation '
    'images are then fitted together.')
# Values of the penalties in D.2: smallest, largest, number.
PAPER_L2 = (1e-6, 1e5, 45)
# Usual iterations for one penalty of the path, to estimate the time. For CIFAR-10, the means were
# 9 with raw pixels and 11 with an encoder trained with labels; for 2,250 of its images, they were
# 4 with a random encoder and 23 with an encoder pretrained by BYOL.
USUAL_ITERATIONS = (4, 25)


check = scoring.check


class Candidate(NamedTuple):
  """The result for one l2; validation: value of the metric on held-out images."""

  l2: float
  validation: float
  iterations: int
  converged: bool


class Fitted(NamedTuple):
  """The regression on training and held-out images, and how l2 was chosen."""

  parameters: Parameters
  metric: str
  candidates: tuple[Candidate, ...]
  chosen: int
  tolerance: float
  refit_converged: bool
  num_classes: int
  train_images: int
  validation_images: int
  seconds: float


def fit(context: FitContext, *, metric: str, l2_values: Sequence[float], tolerance: float,
        max_iterations: int, dtype: str) -> Fitted:
  """Chooses l2 on held-out images, then fits training and held-out images together.

  Args:
    context: labelled features [N, D] of the training images and [M, D] of the held-out images.
    metric: metric by which l2 is chosen, one of `scoring.METRICS`.
    l2_values: penalties to try; 45 from 1e-6 to 1e5 in the paper, log-spaced.
    tolerance: as in `logistic_regression.path`.
    max_iterations: as in `logistic_regression.path`.
    dtype: as in `logistic_regression.path`.

  Raises:
    InputError: features are unusable, or a class has no training image.
  """
  num_classes = context.num_classes
  train, validation = context.features('train'), context.features('validation')
  for name, part in (('train', train), ('validation', validation)):
    # For labels of another kind, its message says more than that of the next check.
    if part.labels is not None:
      scoring.check_metric(metric, part.labels.ndim == 2)
    check_features(name, part, num_classes, multi_label=metric == 'map_voc07')
  chex.assert_equal_shape_suffix([train.embeddings, validation.embeddings], 1)
  check_classes(train.labels, num_classes)
  began = time.monotonic()

  def path(features, l2_values):
    return logistic_regression.path(
        features.embeddings, _targets(features.labels, num_classes),
        kind='binary' if features.labels.ndim == 2 else 'multinomial', l2_values=l2_values,
        tolerance=tolerance, max_iterations=max_iterations, dtype=dtype)

  parallel.print_once(
      f'linear_transfer: {len(l2_values)} penalties on {len(train.labels)} images, '
      f'{train.embeddings.shape[1]} features, {num_classes} classes; then the last fit on '
      f'{len(train.labels) + len(validation.labels)} images')
  candidates, before = [], began
  for solution in path(train, l2_values):
    candidates.append(Candidate(
        solution.l2, _score(solution.parameters, validation, metric)[metric],
        solution.iterations, solution.converged))
    # The time of the first candidate includes compilation.
    if len(candidates) == 2:
      each = (time.monotonic() - before) / max(1, solution.iterations)
      low, high = (2 * len(l2_values) * usual * each for usual in USUAL_ITERATIONS)
      parallel.print_once(
          f'linear_transfer: {1000 * each:.3g} ms per iteration; all penalties and the '
          f'last fit take {low:.1f} to {high:.1f} s with {USUAL_ITERATIONS[0]} to '
          f'{USUAL_ITERATIONS[1]} iterations each')
    before = time.monotonic()
  chosen = int(np.argmax([candidate.validation for candidate in candidates]))
  both = Features(*(np.concatenate(arrays) for arrays in zip(train, validation)))
  # From the strongest to the chosen penalty: starting at zero with a weak one takes much longer.
  *_, solution = path(both, [candidate.l2 for candidate in candidates[:chosen + 1]])
  return Fitted(solution.parameters, metric, tuple(candidates), chosen, tolerance,
                solution.converged, num_classes, len(train.labels), len(validation.labels),
                time.monotonic() - began)


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """All metrics of `scoring.score` on the test images, in [0, 1].

  Raises:
    InputError: the test features are unusable.
  """
  test = context.features('test')
  check_features('test', test, fitted.num_classes, multi_label=fitted.metric == 'map_voc07')
  return _score(fitted.parameters, test, fitted.metric)


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice of l2, convergence and the numbers of images."""
  l2_values = sorted(candidate.l2 for candidate in fitted.candidates)
  edges = fitted.chosen in (0, len(fitted.candidates) - 1)
  low, high, count = PAPER_L2
  ended = sum(not candidate.converged for candidate in fitted.candidates)
  as_in_paper = (len(l2_values) == count
                 and np.allclose(l2_values, np.geomspace(low, high, count), rtol=1e-3))
  return dict(
      protocol=PROTOCOL, metric=fitted.metric, l2=fitted.candidates[fitted.chosen].l2,
      l2_at_edge=edges, candidates=[candidate._asdict() for candidate in fitted.candidates],
      differs_from_paper=[
          *([] if as_in_paper else [f'{len(l2_values)} l2 values from {l2_values[0]:g} to '
                                    f'{l2_values[-1]:g} ({count} from {low:g} to {high:g})']),
          *([f'{ended} of {len(l2_values)} fits ended before their tolerance (converged)']
            if ended else []),
          *([] if fitted.refit_converged else ['the last fit ended before its tolerance '
                                               '(converged)'])],
      tolerance=fitted.tolerance, refit_converged=fitted.refit_converged,
      num_classes=fitted.num_classes, train_images=fitted.train_images,
      validation_images=fitted.validation_images, seconds=fitted.seconds)


def _targets(labels: np.ndarray, num_classes: int) -> np.ndarray:
  return labels if labels.ndim == 2 else np.eye(num_classes)[labels]


def _score(parameters: Parameters, features: Features, metric: str) -> dict[str, float]:
  return scoring.score(logistic_regression.logits(parameters, features.embeddings),
                       features.labels, metric)
