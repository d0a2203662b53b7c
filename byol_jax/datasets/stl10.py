"""STL-10 from the binary files of its authors, which include the folds that TFDS leaves out.

A. Coates, H. Lee, A. Y. Ng: An Analysis of Single Layer Networks in Unsupervised
Feature Learning, 2011. Images have 96 x 96 pixels, and there are ten classes: 100,000
unlabelled images for pretraining, 5,000 labelled images in ten overlapping folds of 1,000 for
training, and 8,000 for testing. The files come from https://cs.stanford.edu/~acoates/stl10:
unlabeled_X.bin, train_X.bin, train_y.bin, test_X.bin, test_y.bin, fold_indices.txt.
"""

import pathlib

import numpy as np

from byol_jax import ranges
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.memory import Arrays
from byol_jax.input_pipeline.records import DataError, Files, Records

SIDE = 96
CLASS_NAMES = ('airplane', 'bird', 'car', 'cat', 'deer', 'dog', 'horse', 'monkey', 'ship', 'truck')
CLASSES = len(CLASS_NAMES)
LOCATION_OPTIONS = ('folder',)
OPTIONS = dict(
    folder='stl10_binary',  # folder with the files; a path
    # Use the 100,000 unlabelled images, for pretraining; True or False
    unlabelled=True,
    # A predefined fold (None: all 5,000 images); a whole number in [0, 9] or None
    fold=None,
    validation_share=0.1,  # share of the training images held out; a number in [0, 1)
    # Share of the other labelled images used; below 1 it is class-balanced; a number in (0, 1]
    subset_share=1.0,
    subset_seed=0,  # selects the subset; a whole number of 0 or more
)
RANGES = dict(
    folder=ranges.PATH, unlabelled=ranges.FLAG, fold=ranges.optional(ranges.whole(0, 9)),
    **splits.SHARE, **splits.SUBSET)
SOURCE = 'https://cs.stanford.edu/~acoates/stl10 (stl10_binary.tar.gz)'


def records(part: str, *, folder: str, unlabelled: bool, fold: int | None) -> Records | None:
  """Lists the images of a part.

  Args:
    part: 'train' or 'test'; there is no 'validation'.
    folder: folder with the binary files.
    unlabelled: whether the training images are the 100,000 images without labels, for
      pretraining; otherwise they are the labelled images.
    fold: number of a predefined fold, 0 ... 9: only its labelled training images are used; None:
      all 5,000.

  Raises:
    DataError: a file is missing, or its size does not fit its format.
  """
  if part == 'validation':
    return None
  name = 'test' if part == 'test' else 'unlabeled' if unlabelled else 'train'
  file = f'{name}_X.bin'
  images = _read(folder, file, 3 * SIDE * SIDE)
  # The files store images by columns, one channel after another.
  images = images.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)
  store, files = Arrays(images.__getitem__, len(images)), lambda: _files(folder, name, fold)
  if name == 'unlabeled':
    return Records(file, store, labels=None, num_classes=0, files=files)
  labels = _read(folder, f'{name}_y.bin', 1)[:, 0].astype(np.int32) - 1
  if len(labels) != len(images):
    raise DataError(f'{folder}: {len(images)} images in {file}, {len(labels)} labels in '
                    f'{name}_y.bin; download the files again from {SOURCE}.')
  rows = None if name == 'test' or fold is None else _fold(folder, fold, len(images))
  return Records(file, store, labels, CLASSES, class_names=CLASS_NAMES, rows=rows, files=files)


def _files(folder: str, name: str, fold: int | None) -> Files:
  names = [f'{name}_X.bin']
  if name == 'train':
    names += ['train_y.bin', *['fold_indices.txt'] * (fold is not None)]
  return Files(names, [str(pathlib.Path(folder).expanduser() / file) for file in names])


def _read(folder: str, name: str, record: int) -> np.ndarray:
  """A file's bytes, uint8 [N, record]; memory-mapped, so that a host reads only what it owns."""
  path = pathlib.Path(folder).expanduser() / name
  if not path.is_file():
    raise DataError(f'{path} is missing (data.options.folder); get it from {SOURCE}.')
  if not path.stat().st_size or path.stat().st_size % record:
    raise DataError(f'{path} has {path.stat().st_size} bytes, not a multiple of {record}; '
                    f'download it again from {SOURCE}.')
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
    raise DataError(f'{path}, line {fold + 1} is not a list of numbers: {error}') from error
  if not len(rows) or rows.min() < 0 or rows.max() >= count:
    raise DataError(f'{path}, line {fold + 1} must list rows in 0 ... {count - 1}.')
  return rows
