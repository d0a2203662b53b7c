"""Images drawn by their classes: as many of each, and balanced subsets."""

from collections.abc import Sequence

import numpy as np

from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import DataError, numbered

# First of the hash's keys, so that no draw repeats that of another purpose.
HOLD_OUT, SUBSET = 101, 102


def round_robin_by_class(labels: np.ndarray, rows: np.ndarray, *key: int
                         ) -> tuple[np.ndarray, np.ndarray]:
  """Draws one image of each class, then a second one of each, and so on.

  Args:
    labels: int [N] of the whole training split.
    rows: int [M], the images that take part.
    *key: non-negative integers, which draw.

  Returns:
    `rows` in the order in which they are drawn, int64 [M], and the turn of each, from 0,
    int64 [M]. A class takes part until it has no images left.
  """
  # Drawn by the places in the whole split: images that do not take part move no other one.
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
  """Draws as many images of each class, which are held out.

  Args:
    labels: int [N] in 0 ... num_classes - 1.
    num_classes: classes in the data set.
    per_class: how many of each, 1 or more.
    class_names: for the message; () where classes have none.

  Returns:
    int64 [num_classes * per_class], ascending.

  Raises:
    DataError: a class would have no image left.
  """
  counts = np.bincount(labels, minlength=num_classes)
  least = int(np.argmin(counts))
  if counts[least] <= per_class:
    raise DataError(
        f'Class {numbered(class_names, least)} has {counts[least]} images in '
        f'data.options.train_split, of which held_out_per_class {per_class} leaves none for '
        'training; give fewer, or more images.')
  order, turn = round_robin_by_class(labels, np.arange(len(labels)), HOLD_OUT)
  return np.sort(order[turn < per_class])


def draw(labels: np.ndarray, rows: np.ndarray, num_classes: int, share: float, seed: int,
         class_names: Sequence[str] = ()) -> np.ndarray:
  """Draws a share of the images in which the classes differ by one image at most.

  Classes with too few images for that are in it with all they have. A larger share of the
  same seed holds every smaller one.

  Args:
    labels: int [N] of the whole training split.
    rows: int [M], the images to choose from, ascending.
    num_classes: classes in the data set.
    share: of `rows`, in (0, 1]; rounded to whole images.
    seed: non-negative; draws the subset.
    class_names: for the message; () where classes have none.

  Returns:
    int64 [round(share * M)], ascending.

  Raises:
    DataError: a class without images, or fewer images than classes.
  """
  counts = np.bincount(labels[rows], minlength=num_classes)
  if not counts.all():
    missing = np.flatnonzero(counts == 0)
    raise DataError(f'{len(missing)} of {num_classes} classes have no training images, the first '
                    f'is class {numbered(class_names, missing[0])}; a balanced subset needs all of '
                    'them: check the training images of data.options.')
  size = round(share * len(rows))
  if size < num_classes:
    raise DataError(f'data.options.subset_share {share} of {len(rows)} training images are {size}, '
                    f'for {num_classes} classes; give at least {num_classes / len(rows):.3g}.')
  order, _ = round_robin_by_class(labels, rows, SUBSET, seed)
  return np.sort(order[:size])
