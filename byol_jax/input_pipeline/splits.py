"""Which images a split has: held-out images and balanced subsets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import numpy as np

from byol_jax import plugins, ranges
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import (
  SPLITS,
  TOGETHER,
  DataError,
  Shards,
  Split,
  Stream,
  Subset,
  check_labels,
  numbered,
)


def read(
    name: str,
    split: str,
    *,
    purpose: str,
    access_log: Callable[[Mapping[str, Any]], None] | None = None,
    shards: Shards = Shards(),
    options: Mapping[str, Any],
) -> Split | Stream:
  """Loads a split of the data set `name` and notes the access.

  Args:
    name: a module of this package ('shapes', 'tfds', ...) or a dotted path.
    split: one of SPLITS.
    purpose: why the split is read, for the access log.
    access_log: called with one record per access; None keeps no log.
    shards: the records this host owns.
    options: keyword arguments of the module's `load`.

  Returns:
    The checked split.

  Raises:
    DataError: the split does not exist, is empty or has wrong shapes.
  """
  if split not in SPLITS:
    raise DataError(f'Unknown split {split!r}; the splits are {", ".join(SPLITS)}.')
  data = plugins.function('datasets', name, 'load', options)(split, shards=shards, **options)
  where = f'Data set {name!r}, split {split!r}'
  if isinstance(data, Split):
    _check(where, data)
  elif data.num_examples < 1:
    raise DataError(f'{where} has no images.')
  if access_log is not None:
    access_log(dict(dataset=name, split=split, purpose=purpose, examples=data.num_examples))
  return data


def _check(where: str, data: Split) -> None:
  images, labels = data.images, data.labels
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
    raise DataError(f'{where}: images must be uint8 [N, H, W, 3], not '
                    f'{images.dtype} {list(images.shape)}.')
  # A host may own none of the images of a small split.
  if not data.num_examples or len(data.sample_id) and not images.size:
    raise DataError(f'{where} has no images: {list(images.shape)}.')
  if labels is not None:
    if labels.shape not in (images.shape[:1], (len(images), data.num_classes)):
      raise DataError(f'{where}: {len(images)} images but labels of shape '
                      f'{list(labels.shape)}; give one integer per image, or '
                      f'{data.num_classes} for several classes.')
    check_labels(where, labels, data.num_classes)
  chex.assert_shape(data.sample_id, images.shape[:1])


# Of the options of a data set that draw a subset.
RANGES = dict(subset_share=ranges.number(0, 1, '(]'), subset_seed=ranges.SEED)
# First of the hash's keys, so that no draw repeats that of another purpose.
HOLD_OUT, SUBSET = 101, 102


def by_turns(labels: np.ndarray, rows: np.ndarray, *key: int) -> tuple[np.ndarray, np.ndarray]:
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


def held_out(labels: np.ndarray, num_classes: int, per_class: int,
             class_names: Sequence[str] = ()) -> np.ndarray:
  """The images held out of each class.

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
  order, turn = by_turns(labels, np.arange(len(labels)), HOLD_OUT)
  return np.sort(order[turn < per_class])


def of_training(split: str, rows: np.ndarray, held: np.ndarray, labels: Callable[[], np.ndarray],
                num_classes: int, share: float, seed: int, class_names: Sequence[str] = ()
                ) -> tuple[np.ndarray, Subset | None]:
  """The training images that a split has.

  Args:
    split: 'train', 'validation' or 'train+validation'.
    rows: int [M], all training images that take part.
    held: those of them that are held out.
    labels: () -> int [N] of the whole training split, asked for where a subset is drawn.
    num_classes: classes in the data set.
    share: of the others, that are trained on; below 1 a `subset`.
    seed: draws it.
    class_names: for messages; () where classes have none.

  Returns:
    Their rows, ascending, and the subset among them.

  Raises:
    DataError: as `subset`.
  """
  if split == 'validation':
    return np.sort(held), None
  chosen, drawn = np.sort(rows[~np.isin(rows, held)]), None
  if share != 1:
    name = f'share{share:g}_of{len(chosen)}_seed{seed}'
    chosen = subset(labels(), chosen, num_classes, share, seed, class_names)
    drawn = Subset(name, chosen)
  return (np.sort(np.concatenate([chosen, held])) if split == TOGETHER else chosen), drawn


def one_label_each(labels: np.ndarray | None, where: str) -> np.ndarray:
  """Labels int [N]; raises DataError where there are none."""
  if labels is None:
    raise DataError(f'data.options.subset_share needs one label for each image, and {where} has '
                    'none; leave it at 1.')
  return labels


def subset(labels: np.ndarray, rows: np.ndarray, num_classes: int, share: float, seed: int,
           class_names: Sequence[str] = ()) -> np.ndarray:
  """A share of the images in which the classes differ by one image at most.

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
  order, _ = by_turns(labels, rows, SUBSET, seed)
  return np.sort(order[:size])
