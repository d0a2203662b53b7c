"""What evaluators with fine-tuning have in common apart from the training: checks and scores."""

from collections.abc import Callable, Mapping
import hashlib
from typing import Any, NamedTuple

import numpy as np

from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuning, grids, scoring
from byol_jax.evaluation.contract import (
  EvalContext,
  Features,
  FitContext,
  check_classes,
  check_features,
)
from byol_jax.evaluation.fine_tuning import CLASSIFIER, Weights


class Fitted(NamedTuple):
  """The encoder and classifier of the chosen point, and how it was chosen.

  candidates: one for each point of the grid; `chosen` is an index into them.
  options: options of `fit`.
  """

  weights: Weights
  candidates: tuple[grids.Candidate, ...]
  chosen: int
  num_classes: int
  options: Mapping[str, Any]
  train_images: int
  validation_images: int


def scores(weights: Weights | None, embed: Callable[[Any], Features], metric: str
           ) -> dict[str, float] | None:
  """Scores of the classifier on a split; None for weights that have diverged.

  Args:
    weights: weights of an encoder and its classifier.
    embed: the encoder's variables -> the split's features.
    metric: one of `scoring.METRICS`.

  Returns:
    The result of `scoring.score`.
  """
  if weights is None:
    return None
  features = embed(tuple(weights))
  if not np.isfinite(features.embeddings).all():
    return None
  classifier = weights.params[CLASSIFIER]
  return scoring.score(features.embeddings @ classifier['w'] + classifier['b'], features.labels,
                       metric)


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """`scores` of the chosen weights on the test images.

  Args:
    fitted: the result of an evaluator's `fit`.
    context: features of the test images.

  Raises:
    InputError: the test images are unusable.
  """
  features = context.features('test', tuple(fitted.weights))
  metric = fitted.options['metric']
  check_features('test', features, fitted.num_classes, multi_label=metric == 'map_voc07')
  return scores(fitted.weights, lambda _: features, metric)


def check(name: str, context: FitContext, metric: str) -> None:
  """Checks what can be known about the training images before the first step.

  Args:
    name: name of the evaluator, for messages.
    context: context of its `fit`.
    metric: metric by which the best point is chosen.

  Raises:
    InputError: the encoder has nothing to train, the metric is for another kind of labels, or
      classes have no training images.
  """
  if context.images.encoder.training is None:
    raise InputError(f'Evaluator {name} trains the encoder, but raw pixels have none; leave '
                     "'pixels' out of config.encoders.")
  labels = context.images.labels()
  scoring.check_metric(metric, labels.ndim == 2)
  check_classes(labels, context.num_classes)


def checked_validation(context: FitContext, metric: str) -> tuple[int, str]:
  """The number of held-out images, and a digest of their labels.

  Raises:
    InputError: the images are unusable; this is checked before hours of training, not after.
  """
  num_classes = context.num_classes
  start = fine_tuning.with_new_classifier(context.images, num_classes)
  features = context.features('validation', tuple(start))
  check_features('validation', features, num_classes, multi_label=metric == 'map_voc07')
  # This raises an error if a class has no average precision.
  scoring.score(np.zeros((len(features.labels), num_classes)), features.labels, metric)
  return len(features.labels), hashlib.sha256(features.labels.tobytes()).hexdigest()


def describe(fitted: Fitted, protocol: str, paper: Mapping[str, Any]) -> dict[str, Any]:
  """The protocol in words, differences from the paper's options, the choice and the counts."""
  points = [candidate.point for candidate in fitted.candidates]
  point = points[fitted.chosen]
  axes = {key: sorted({other[key] for other in points}) for key in point}
  return dict(
      protocol=protocol,
      differs_from_paper=[f'{key} {_shown(fitted.options[key])} ({_shown(value)})'
                          for key, value in paper.items() if fitted.options[key] != value],
      chosen=dict(point), validation=fitted.candidates[fitted.chosen].validation,
      # Of two values, both are at an edge.
      chosen_at_edge=[key for key, values in axes.items()
                      if len(values) > 2 and point[key] in (values[0], values[-1])],
      candidates=[dict(candidate.point, validation=candidate.validation,
                       seconds=candidate.seconds) for candidate in fitted.candidates],
      train_images=fitted.train_images, validation_images=fitted.validation_images,
      num_classes=fitted.num_classes, **fitted.options)


def _shown(value: Any) -> str:
  if isinstance(value, tuple):
    return ', '.join(map(_shown, value))
  return f'{value:.4g}' if isinstance(value, float) else str(value)
