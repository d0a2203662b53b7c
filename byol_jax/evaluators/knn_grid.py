"""Weighted k nearest neighbours with k and temperature chosen on validation images."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax.errors import InputError
from byol_jax.evaluators import ACCURACY, Facts, Features, check_features, knn

TITLE, METRICS, MAIN_METRIC = 'kNN, chosen', ACCURACY, 'top1'
PROTOCOL = (
    'k nearest neighbours among the training images by cosine similarity, votes weighted by '
    'exp(similarity / temperature) (Wu et al. 2018); k and temperature are chosen by top-1 on '
    'validation images, which do not vote, the first of equals.')


class Fitted(NamedTuple):
  """The neighbours with the options chosen, and how: (k, temperature, validation top-1)."""

  chosen: knn.Fitted
  candidates: tuple[tuple[int, float, float], ...]


def fit(train: Features, validation: Features, *, num_classes: int, k_values: Sequence[int],
        temperatures: Sequence[float]) -> Fitted:
  """Chooses among all pairs of `k_values` and `temperatures`.

  Args:
    train: the bank, embeddings float32 [N, D], labelled.
    validation: M labelled images, which choose.
    num_classes: classes in the data set.
    k_values: neighbours that vote; those above N are left out.
    temperatures: of the votes, > 0.

  Raises:
    InputError: an option out of its range, or unusable features.
  """
  check_features('validation', validation, num_classes)
  count = len(train.embeddings)
  wrong = [k for k in k_values
           if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1]
  if wrong:
    raise InputError(f'evaluators.knn_grid.k_values has {wrong[0]!r}; give integers of 1 or more.')
  possible = _possible(k_values, temperatures, count)
  pairs = [(k, temperature) for k in possible for temperature in temperatures]
  # The bank is looked through once; it may be large.
  first = knn.fit(train, validation, num_classes=num_classes, k=possible[0],
                  temperature=temperatures[0])
  options = [first._replace(k=k, temperature=temperature) for k, temperature in pairs]
  for option in options:
    knn.check_options(option)
  scores = knn.evaluate_all(options, validation)
  top1 = [score['top1'] for score in scores]
  return Fitted(options[int(np.argmax(top1))],
                tuple((k, temperature, score) for (k, temperature), score in zip(pairs, top1)))


def check(facts: Facts, *, k_values: Sequence[int], temperatures: Sequence[float]) -> None:
  """Raises InputError where no pair of k and temperature is left with so few images."""
  _possible(k_values, temperatures, facts.train.images)


def _possible(k_values: Sequence[int], temperatures: Sequence[float], images: int) -> list[int]:
  """The values of k that so many training images allow."""
  possible = [int(k) for k in k_values if k <= images]
  if not possible or not len(temperatures):
    raise InputError(f'k_values is {tuple(k_values)} and temperatures {tuple(temperatures)}, with '
                     f'{images} training images; give at least one of each that is possible.')
  return possible


def evaluate(fitted: Fitted, test: Features) -> dict[str, float]:
  """`knn.evaluate` with the options chosen."""
  return knn.evaluate(fitted.chosen, test)


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice and the counts of images."""
  return dict(knn.describe(fitted.chosen), protocol=PROTOCOL, candidates=[
      dict(k=k, temperature=temperature, validation_top1=top1)
      for k, temperature, top1 in fitted.candidates])
