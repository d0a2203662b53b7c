"""Which images a split has, for all data sets: held-out images and balanced subsets.

The options of this file are part of a data set's options, in `data.options`. A data set has the
options that are in its module's `RANGES`.

- `validation_share`: in [0, 1); ceil(share * N) training images, selected by a hash of their
  places, are held out.
- `held_out`: the 'last' (paper) or 'first' (reference) training images are held out, or
  'per_class': the same number of each class, selected by a hash.
- `held_out_images`: number of held-out images; 10,009 in the paper, 10,000 in the reference.
- `held_out_share`: at most this share of the training images is held out, rounded up; this matters
  for small data sets.
- `held_out_per_class`: number of held-out images of each class, with held_out 'per_class'.
- `subset_share`: share of the training images that are not held out; below 1 it is a
  class-balanced subset.
- `subset_seed`: selects the subset; the held-out images do not depend on it.

If a data set has a validation part of its own, no image is held out.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from typing import Any

import numpy as np

from byol_jax import plugins, ranges
from byol_jax.input_pipeline import subsets
from byol_jax.input_pipeline.batches import Batches
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import (
  SPLITS,
  TOGETHER,
  DataError,
  Files,
  Records,
  Selected,
  Shards,
  Subset,
  check_labels,
)

# Ranges of the options of this file, in the groups in which data sets use them.
SHARE = dict(validation_share=ranges.number(0, 1, '[)'))
HELD_OUT = dict(
    held_out=ranges.OneOf(('first', 'last', 'per_class')), held_out_images=ranges.whole(0),
    held_out_share=ranges.number(0, 1, '[)'), held_out_per_class=ranges.whole(0))
SUBSET = dict(subset_share=ranges.number(0, 1, '(]'), subset_seed=ranges.SEED)
# Defaults of options that need not be given.
DEFAULTS = dict(held_out_per_class=0, subset_share=1., subset_seed=0)


def read(
    name: str,
    split: str,
    *,
    purpose: str,
    access_log: Callable[[Mapping[str, Any]], None] | None = None,
    shards: Shards = Shards(),
    options: Mapping[str, Any],
    check: Callable[[Selected], Any] | None = None,
    in_memory: bool = False,
    workers: int = 0,
) -> Batches:
  """Opens a split of the data set `name` and logs the access; the only function that opens a split.

  Args:
    name: a module of `datasets` ('shapes', 'tfds', ...) or a dotted path.
    split: one of SPLITS.
    purpose: why the split is read, for the access log.
    access_log: called with one record per access; None keeps no log.
    shards: the shards that this host owns.
    options: options of the data set, including those of this file that it has.
    check: called with the selected images, before an image is decoded.
    in_memory: whether images on disk are decoded into memory.
    workers: number of images decoded at once; 0 lets tf.data decide.

  Returns:
    A `memory.Split` or a `streams.Stream`, checked.

  Raises:
    DataError: the split does not exist, is empty or has wrong shapes.
    InputError: wrong options.
  """
  selected = select(name, split, options)
  if check:
    check(selected)
  data = (selected.store.in_memory(selected, shards, workers) if in_memory
          else selected.store.open(selected, shards))
  if access_log is not None:
    access_log(dict(dataset=name, split=split, purpose=purpose, examples=data.num_examples))
  return data


def divide_options(name: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Divides options into those of a data set's module and those of this file.

  Raises:
    InputError: options are unknown, missing or invalid.
  """
  declared = getattr(plugins.load('datasets', name), 'RANGES', {})
  here = [key for key in (*SHARE, *HELD_OUT, *SUBSET) if key in declared]
  plugins.function('datasets', name, 'records', options,
                   shared={key: key not in DEFAULTS for key in here})
  choice = {key: options.get(key, DEFAULTS.get(key)) for key in here}
  if choice.get('held_out') == 'per_class' and not choice['held_out_per_class']:
    raise DataError("data.options.held_out_per_class is 0; held_out='per_class' needs 1 or more.")
  return {key: value for key, value in options.items() if key not in here}, choice


def select(name: str, split: str, options: Mapping[str, Any]) -> Selected:
  """Lists the records of a split; no image is decoded.

  Args:
    name: as in `read`.
    split: one of SPLITS.
    options: as in `read`.

  Raises:
    DataError: as in `read`, for problems that can be found before an image is read.
    InputError: wrong options.
  """
  if split not in SPLITS:
    raise DataError(f'Unknown split {split!r}; the splits are {", ".join(SPLITS)}.')
  own, choice = divide_options(name, options)
  records = plugins.load('datasets', name).records
  where = f'Data set {name!r}, split {split!r}'
  listed = functools.cache(lambda part: _matching(where, records(part, **own)))
  if split == 'test':
    if listed('test') is None:
      raise DataError(f'{where}: there is no test part.')
    return _selected(where, (listed('test'), _taking_part(listed('test'))))
  apart = listed('validation')
  if split == 'validation' and apart is not None:
    return _selected(where, (apart, _not_trained_on(apart, listed)))
  train, rows = listed('train'), _taking_part(listed('train'))
  held = rows[:0] if apart is not None else _held_out(train, rows, choice)
  rows, subset = select_training_rows(
      split, rows, held, functools.partial(_one_label_each, train, 'subset_share', 'leave it at 1'),
      train.num_classes, choice.get('subset_share', 1.), choice.get('subset_seed', 0),
      train.class_names)
  if not len(rows):
    given = ', '.join(f'data.options.{key} {value!r}' for key, value in choice.items()
                      if key not in SUBSET)
    without = (' A pretraining needs none if evals.every_epochs is 0.' if split == 'validation'
               else '')
    raise DataError(
        f'{train.where}: the {split} split is empty with {train.store.count} images and '
        f'{given or "no option that holds images out; see docs/extending.md"}.{without}')
  more = [(apart, _not_trained_on(apart, listed))] if apart and split == TOGETHER else []
  found = _selected(where, (train, rows), *more)
  # Other files in the training folder are reported once, with the training images.
  return found._replace(subset=subset, origin=_origin(train, apart),
                        left_out='' if split == 'validation' else found.left_out)


def _matching(where: str, records: Records | None) -> Records | None:
  """Returns the records; raises DataError unless there are as many labels as images."""
  if records is not None and records.labels is not None and (
      len(records.labels) != records.store.count):
    raise DataError(f'{where}: {records.store.count} images but labels of shape '
                    f'{list(records.labels.shape)}; give one integer per image, or '
                    f'{records.num_classes} for several classes.')
  return records


def _selected(where: str, *parts: tuple[Records, np.ndarray]) -> Selected:
  """Selects these rows of each part, one part after the other."""
  records = [part for part, _ in parts]
  store = functools.reduce(lambda one, other: one.followed_by(other),
                           [part.store.take(rows) for part, rows in parts])
  if not store.count:
    raise DataError(f'{where} has no images.')
  labels = None
  if all(part.labels is not None for part in records):
    labels = np.concatenate([part.labels[rows] for part, rows in parts])
  first = records[0]
  return Selected(where, store, labels, first.num_classes, first.multi_label, first.class_names,
                  subset=None, origin=None, summary=first.summary(labels),
                  left_out='; '.join(dict.fromkeys(
                      part.left_out for part in records if part.left_out)))


def _taking_part(records: Records) -> np.ndarray:
  return np.arange(records.store.count) if records.rows is None else records.rows


def _not_trained_on(apart: Records, listed: Callable[[str], Records]) -> np.ndarray:
  """The rows of a validation part whose images are not in the training part."""
  rows = _taking_part(apart)
  if apart.image_ids is None:
    return rows
  taken, own = set(listed('train').image_ids().tolist()), apart.image_ids().tolist()
  return rows[~np.isin(own, list(taken))[rows]]


def _origin(*parts: Records | None) -> Callable[[], Files] | None:
  """() -> the files of the training part and of the validation part, if there is one."""
  known = [part.files for part in parts if part is not None and part.files is not None]

  def origin() -> Files:
    found = [files() for files in known]
    # Two parts can be in the same file.
    paths = {name: path for one in found for name, path in zip(one.names, one.paths)}
    return Files(list(paths), list(paths.values()), found[0].order, found[0].packed)

  return origin if known else None


def _held_out(records: Records, rows: np.ndarray, choice: Mapping[str, Any]) -> np.ndarray:
  """The training images among `rows` that are held out according to the options."""
  if 'validation_share' in choice:
    count = math.ceil(choice['validation_share'] * len(rows))
    return rows[permutation(len(rows), 0)[:count]]
  if 'held_out' not in choice:
    return rows[:0]
  if choice['held_out'] == 'per_class':
    return subsets.of_each_class(
        _one_label_each(records, "held_out='per_class'", "take 'first' or 'last'"),
        records.num_classes, choice['held_out_per_class'], records.class_names)
  count = min(choice['held_out_images'], math.ceil(choice['held_out_share'] * len(rows)))
  return rows[:count] if choice['held_out'] == 'first' else rows[len(rows) - count:]


def _one_label_each(records: Records, option: str, instead: str) -> np.ndarray:
  """Labels int [N]; raises DataError if there are none, or several for an image."""
  labels = records.labels
  if labels is None and records.read_labels:
    labels = records.read_labels()
  if labels is None or records.multi_label:
    raise DataError(f'data.options.{option} needs one label per image, but {records.where} '
                    f'has {"several" if records.multi_label else "none"}; {instead}.')
  check_labels(records.where, labels, records.num_classes)
  return labels


def select_training_rows(split: str, rows: np.ndarray, held: np.ndarray,
                         labels: Callable[[], np.ndarray], num_classes: int, share: float,
                         seed: int, class_names: Sequence[str] = ()
                         ) -> tuple[np.ndarray, Subset | None]:
  """Selects the training images of a split.

  Args:
    split: 'train', 'validation' or 'train+validation'.
    rows: int [M], all training images that are used.
    held: the rows that are held out.
    labels: () -> int [N] of the whole training split; called only if a subset is drawn.
    num_classes: number of classes in the data set.
    share: share of the other images that is used for training; below 1 it is a balanced subset.
    seed: selects the subset.
    class_names: names of the classes for messages; () if they have no names.

  Returns:
    The selected rows, ascending, and the subset among them.

  Raises:
    DataError: as in `subsets.draw`.
  """
  if split == 'validation':
    return np.sort(held), None
  chosen, drawn = np.sort(rows[~np.isin(rows, held)]), None
  if share != 1:
    name = f'share{share:g}_of{len(chosen)}_seed{seed}'
    chosen = subsets.draw(labels(), chosen, num_classes, share, seed, class_names)
    drawn = Subset(name, chosen)
  return (np.sort(np.concatenate([chosen, held])) if split == TOGETHER else chosen), drawn
