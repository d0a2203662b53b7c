"""Weighted k nearest neighbours with k and temperature chosen on held-out images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import ranges
from byol_jax.errors import InputError
from byol_jax.evaluation.contract import EvalContext, Facts, FitContext, check_features
from byol_jax.evaluation.scoring import ACCURACY
from byol_jax.evaluators import knn

TITLE, METRICS, MAIN_METRIC = 'kNN, chosen', ACCURACY, 'top1'
OPTIONS = dict(
    # Values above the number of training images are left out;
    # one or more whole numbers of 1 or more, each once
    k_values=(1, 5, 10, 20, 50, 100, 200),
    # Of the neighbours' votes; one or more numbers above 0, each once
    temperatures=(0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 1.0),
)
RANGES = dict(k_values=ranges.Several(ranges.whole(1), order='each once'),
              temperatures=ranges.GRID)
PROTOCOL = (
    'k nearest neighbours among the training images by cosine similarity, votes weighted by '
    'exp(similarity / temperature) (Wu et al. 2018); k and temperature are chosen by top-1 on '
    'validation images, which do not vote, the first of equals.')


class Fitted(NamedTuple):
  """The bank with the chosen options, and all candidates: (k, temperature, validation top-1)."""

  chosen: knn.Fitted
  candidates: tuple[tuple[int, float, float], ...]


def fit(context: FitContext, *, k_values: Sequence[int], temperatures: Sequence[float]
        ) -> Fitted:
  """Chooses among all pairs of `k_values` and `temperatures`.

  Args:
    context: labelled features float32 [N, D] of the training images, which are the bank, and of
      the held-out images, which are used for the choice.
    k_values: numbers of neighbours that vote; values above N are left out.
    temperatures: temperatures of the votes, > 0.

  Raises:
    InputError: there are fewer training images than each of `k_values`, or unusable features.
  """
  train, validation = context.features('train'), context.features('validation')
  check_features('validation', validation, context.num_classes)
  possible = _possible(k_values, len(train.embeddings))
  pairs = [(k, temperature) for k in possible for temperature in temperatures]
  # The bank is searched only once, because it may be large.
  first = knn.fit(context, k=possible[0], temperature=temperatures[0])
  options = [first._replace(k=k, temperature=temperature) for k, temperature in pairs]
  scores = knn.evaluate_all(options, validation)
  top1 = [score['top1'] for score in scores]
  return Fitted(options[int(np.argmax(top1))],
                tuple((k, temperature, score) for (k, temperature), score in zip(pairs, top1)))


def check(facts: Facts, *, k_values: Sequence[int], **_) -> None:
  """Raises InputError if there are fewer training images than every k."""
  _possible(k_values, facts.train.images)


def _possible(k_values: Sequence[int], images: int) -> list[int]:
  """The values of k that this number of training images allows."""
  possible = [int(k) for k in k_values if k <= images]
  if not possible:
    raise InputError(f'evaluators.knn_grid.k_values is {tuple(k_values)}, but there are {images} '
                     f'training images; give at least one value in 1 ... {images}.')
  return possible


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """`knn.evaluate` with the chosen options."""
  return knn.evaluate(fitted.chosen, context)


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice and the numbers of images."""
  return dict(knn.describe(fitted.chosen), protocol=PROTOCOL, candidates=[
      dict(k=k, temperature=temperature, validation_top1=top1)
      for k, temperature, top1 in fitted.candidates])
