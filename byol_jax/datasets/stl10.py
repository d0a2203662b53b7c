"""STL-10 from the binary files of its authors, which hold what TFDS leaves out: the folds.

A. Coates, H. Lee, A. Y. Ng: An Analysis of Single Layer Networks in Unsupervised
Feature Learning, 2011. 96 x 96 pixels, ten classes: 100,000 unlabelled images for
pretraining, 5,000 labelled ones in ten overlapping folds of 1,000 for training, 8,000
for testing. The files are those of https://cs.stanford.edu/~acoates/stl10:
unlabeled_X.bin, train_X.bin, train_y.bin, test_X.bin, test_y.bin, fold_indices.txt.
"""

import math
import pathlib

import numpy as np

from byol_jax import ranges
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import DataError, Files, Shards, Split

SIDE = 96
CLASS_NAMES = ('airplane', 'bird', 'car', 'cat', 'deer', 'dog', 'horse', 'monkey', 'ship', 'truck')
CLASSES = len(CLASS_NAMES)
LOCATION_OPTIONS = ('folder',)
RANGES = dict(
    folder=ranges.PATH, unlabelled=ranges.FLAG, fold=ranges.optional(ranges.whole(0, 9)),
    validation_share=ranges.number(0, 1, '[)'), **splits.RANGES)
SOURCE = 'https://cs.stanford.edu/~acoates/stl10 (stl10_binary.tar.gz)'


def load(split: str, *, shards: Shards, folder: str, unlabelled: bool, fold: int | None,
         validation_share: float, subset_share: float = 1., subset_seed: int = 0) -> Split:
  """Loads a split.

  Args:
    split: 'train' and 'validation' part the training images between them, 'test' is
      the test images.
    shards: the records this host owns.
    folder: of the binary files.
    unlabelled: the 100,000 images without labels are the training images, for
      pretraining; otherwise the labelled ones are.
    fold: 0 ... 9: the training images of this predefined fold only; None: all 5,000.
    validation_share: in [0, 1); ceil(share * N) of the training images, drawn by a
      hash of their number, are held out.
    subset_share: of the labelled training images that are not held out; below 1 a
      class-balanced subset (input_pipeline/splits.py), which the Split names.
    subset_seed: draws the subset; the held-out images do not depend on it.

  Raises:
    DataError: a file is missing or of another size than its format has, or a subset
      cannot be balanced.
  """
  name = 'test' if split == 'test' else 'unlabeled' if unlabelled else 'train'
  images = _read(folder, f'{name}_X.bin', 3 * SIDE * SIDE)
  # The files hold columns, channel after channel.
  images = images.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)
  labels = None
  if name != 'unlabeled':
    labels = _read(folder, f'{name}_y.bin', 1)[:, 0].astype(np.int32) - 1
    if len(labels) != len(images):
      raise DataError(f'{folder}: {len(images)} images in {name}_X.bin, {len(labels)} labels in '
                      f'{name}_y.bin; copy the files again from {SOURCE}.')
  rows, subset = np.arange(len(images)), None
  if name == 'train' and fold is not None:
    rows = _fold(folder, fold, len(images))
  if split != 'test':
    held = rows[permutation(len(rows), 0)][:math.ceil(validation_share * len(rows))]
    rows, subset = splits.of_training(
        split, rows, held, lambda: splits.one_label_each(labels, f'{name}_X.bin'), CLASSES,
        subset_share, subset_seed, CLASS_NAMES)
  ids = shards.sample_ids(len(rows))
  return Split(ids, np.ascontiguousarray(images[rows[ids]]),
               None if labels is None else labels[rows[ids]], len(rows),
               0 if labels is None else CLASSES, subset, origin=_files(folder, name, fold),
               class_names=() if labels is None else CLASS_NAMES)


def _files(folder: str, name: str, fold: int | None) -> Files:
  names = [f'{name}_X.bin']
  if name == 'train':
    names += ['train_y.bin', *['fold_indices.txt'] * (fold is not None)]
  return Files(names, [str(pathlib.Path(folder).expanduser() / file) for file in names])


def check_split(split: str, *, folder: str, **_) -> None:
  """Raises DataError if a split cannot be read, without reading its images."""
  if split == 'test':
    for name, record in (('test_X.bin', 3 * SIDE * SIDE), ('test_y.bin', 1)):
      _read(folder, name, record)


def _read(folder: str, name: str, record: int) -> np.ndarray:
  """A file's bytes, uint8 [N, record]; mapped, so that a host reads what it owns."""
  path = pathlib.Path(folder).expanduser() / name
  if not path.is_file():
    raise DataError(f'{path} is missing (data.options.folder); get it from {SOURCE}.')
  if not path.stat().st_size or path.stat().st_size % record:
    raise DataError(f'{path} has {path.stat().st_size} bytes, no multiple of {record}; copy it '
                    f'again from {SOURCE}.')
  return np.memmap(path, np.uint8, 'r').reshape(-1, record)


def _fold(folder: str, fold: int, count: int) -> np.ndarray:
  """The rows of a predefined fold: a line of numbers from 0 in fold_indices.txt."""
  path = pathlib.Path(folder).expanduser() / 'fold_indices.txt'
  if not path.is_file():
    raise DataError(f'{path} is missing (data.options.fold); get it from {SOURCE}.')
  lines = path.read_text().splitlines()
  if not 0 <= fold < len(lines):
    raise DataError(f'data.options.fold is {fold}; {path} has the folds 0 ... {len(lines) - 1}.')
  try:
    rows = np.array(lines[fold].split(), np.int64)
  except ValueError as error:
    raise DataError(f'{path}, line {fold + 1} is no list of numbers: {error}') from error
  if not len(rows) or rows.min() < 0 or rows.max() >= count:
    raise DataError(f'{path}, line {fold + 1}: rows outside 0 ... {count - 1}.')
  return rows
