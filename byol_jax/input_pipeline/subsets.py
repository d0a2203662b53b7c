"""Draws images by their classes: the same number of each class, and balanced subsets."""

from collections.abc import Sequence

import numpy as np

from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import DataError, numbered

# First key of the hash, so that draws for different purposes differ.
HOLD_OUT, SUBSET = 101, 102


def round_robin_by_class(labels: np.ndarray, rows: np.ndarray, *key: int
                         ) -> tuple[np.ndarray, np.ndarray]:
  """Draws one image of each class, then a second image of each class, and so on.

  Args:
    labels: int [N] of the whole training split.
    rows: int [M], the images to draw from.
    *key: non-negative integers that determine the draw.

  Returns:
    `rows` in the order in which they are drawn, int64 [M], and the round of each, from 0,
    int64 [M]. A class is in every round until it has no images left.
  """
  # Drawn by the places in the whole split, so that excluded images do not affect the others.
  order = permutation(len(labels), *key)
  order = order[np.isin(order, rows)]
  by_class = np.argsort(labels[order], kind='stable')
  _, starts, counts = np.unique(labels[order][by_class], return_index=True, return_counts=True)
  turn = np.empty(len(order), np.int64)
  turn[by_class] = np.arange(len(order)) - np.repeat(starts, counts)
  first = np.argsort(turn, kind='stable')
  return order[first], turn[first]


def of_each_class(labels: np.ndarray, num_classes: int, per_class: int,
                  class_names: Sequence[str] = ()) -> np.ndarray:
  """Draws the same number of held-out images from each class.

  Args:
    labels: int [N] in 0 ... num_classes - 1.
    num_classes: number of classes in the data set.
    per_class: number of images from each class, 1 or more.
    class_names: names of the classes for the message; () if they have no names.

  Returns:
    The rows, int64 [num_classes * per_class], ascending.

  Raises:
    DataError: a class would have no image left.
  """
  counts = np.bincount(labels, minlength=num_classes)
  least = int(np.argmin(counts))
  if counts[least] <= per_class:
    raise DataError(
        f'Class {numbered(class_names, least)} has {counts[least]} images in '
        f'data.options.train_split, and held_out_per_class {per_class} leaves none of them for '
        'training; hold out fewer, or add images.')
  order, turn = round_robin_by_class(labels, np.arange(len(labels)), HOLD_OUT)
  return np.sort(order[turn < per_class])


def draw(labels: np.ndarray, rows: np.ndarray, num_classes: int, share: float, seed: int,
         class_names: Sequence[str] = ()) -> np.ndarray:
  """Draws a share of the images in which the sizes of the classes differ by at most one.

  Classes with too few images contribute all of their images. With the same seed, a larger share
  contains every smaller share.

  Args:
    labels: int [N] of the whole training split.
    rows: int [M], the images to choose from, ascending.
    num_classes: number of classes in the data set.
    share: share of `rows` in (0, 1]; rounded to whole images.
    seed: non-negative; selects the subset.
    class_names: names of the classes for the message; () if they have no names.

  Returns:
    The rows, int64 [round(share * M)], ascending.

  Raises:
    DataError: a class has no images, or there are fewer images than classes.
  """
  counts = np.bincount(labels[rows], minlength=num_classes)
  if not counts.all():
    missing = np.flatnonzero(counts == 0)
    raise DataError(f'{len(missing)} of {num_classes} classes have no training images, the first '
                    f'is class {numbered(class_names, missing[0])}; a balanced subset needs '
                    'every class: check the training images in data.options.')
  size = round(share * len(rows))
  if size < num_classes:
    raise DataError(f'data.options.subset_share {share} of {len(rows)} training images leaves '
                    f'{size} for {num_classes} classes; set it to at least '
                    f'{num_classes / len(rows):.3g}.')
  order, _ = round_robin_by_class(labels, rows, SUBSET, seed)
  return np.sort(order[:size])
