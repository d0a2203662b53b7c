"""Folders of image files: one subfolder per class, or unlabelled images at any depth.

The formats are JPEG, PNG, GIF, BMP, WebP and TIFF, and AVIF and HEIC if the installed Pillow reads
them. Only the first frame or page of a file is used. Grayscale, CMYK, 16-bit and transparent images
become RGB, and photographs are turned upright. Files with other extensions, and files and folders
whose names start with a dot, are left out and counted (folders.py).
"""

from collections.abc import Iterable
import functools
import itertools
import os
import posixpath

import numpy as np

from byol_jax import ranges
from byol_jax.errors import counted
from byol_jax.input_pipeline import folders, splits
from byol_jax.input_pipeline.listed_files import ImageFiles
from byol_jax.input_pipeline.records import DataError, Files, Records

LABELS = ('folders', 'none')
LOCATION_OPTIONS = ('train', 'validation', 'test')
OPTIONS = dict(
    train='images',  # folder of the training images; a path
    # Folder of held-out images (None: they are taken from `train`); a path or None
    validation=None,
    # Folder of test images (None: there are none); a path or None
    test=None,
    # 'folders': one subfolder per class; 'none': unlabelled; 'folders' or 'none'
    labels='folders',
    # Share of `train` that is held out, unless `validation` is given; a number in [0, 1)
    validation_share=0.1,
    # Rotate images according to their EXIF tag; True or False
    exif_orientation=True,
    # Share of the other training images used; below 1 it is class-balanced; a number in (0, 1]
    subset_share=1.0,
    subset_seed=0,  # selects the subset; a whole number of 0 or more
)
RANGES = dict(
    train=ranges.PATH, validation=ranges.optional(ranges.PATH), test=ranges.optional(ranges.PATH),
    labels=ranges.OneOf(LABELS), exif_orientation=ranges.FLAG, **splits.SHARE, **splits.SUBSET)


def records(part: str, *, train: str, validation: str | None, test: str | None, labels: str,
            exif_orientation: bool = True) -> Records | None:
  """Lists the images of a part without opening any of them.

  Args:
    part: 'train', 'validation' or 'test'.
    train: folder of the training images.
    validation: folder of the held-out images; None if they are taken from `train`.
    test: folder of the test images; None if there are none.
    labels: 'folders': each subfolder of `train` is a class and contains its images at
      any depth, and classes are numbered in the order of their names; 'none': unlabelled
      images at any depth.
    exif_orientation: whether to rotate images according to their EXIF tag; otherwise they are
      used as stored.

  Raises:
    DataError: a folder is missing, has no images or contains several splits, a class has no
      images, or the classes of two folders differ.
  """
  parts = dict(train=train, validation=validation, test=test)
  _check_apart(**parts)
  if part == 'test' and not test:
    raise DataError('There is no test split: set data.options.test to its folder.')
  folder = parts[part]
  if not folder:
    return None
  classes = _subfolders(train) if labels == 'folders' else None
  paths, numbers, left_out = _listed(folder, classes, classes if part == 'train' else None)
  names = tuple(classes or ())

  def files() -> Files:
    found = named(part, folder, paths)
    return Files(list(found), list(found.values()))

  return Records(
      folder, ImageFiles(paths, exif_orientation), numbers, len(names), class_names=names,
      files=files, left_out=left_out,
      summary=functools.partial(folders.summary, folder, names=names))


def named(role: str, folder: str, paths: Iterable[str]) -> dict[str, str]:
  """{'train/cat/1.jpg': path} for the paths, most of which are below the folder."""
  root = folders.root(folder) + '/'
  return {f'{role}/{path.removeprefix(root)}': path for path in paths}


def _listed(folder: str, classes: list[str] | None, own: list[str] | None
            ) -> tuple[np.ndarray, np.ndarray | None, str]:
  """Lists the images of a folder.

  `own` is None if the classes are those of another folder: a class named `test` among the
  training images is a class here too.

  Returns:
    The paths of the images, their class numbers (None for unlabelled images), and a line on the
    files that are left out.
  """
  listing = folders.read(folder)
  inside = listing.inside()
  if own or not classes or not {parts[0] for parts in inside} <= set(classes):
    folders.check_one_split(listing, labelled=classes is not None)
  labels = None if classes is None else _labels(folder, listing.paths, inside, classes)
  return listing.paths, labels, listing.left_out()


def _check_apart(**options: str | None) -> None:
  given = {name: folder for name, folder in options.items() if folder}
  for one, other in itertools.permutations(given, 2):
    inner, outer = (os.path.realpath(folders.root(given[name])) + '/' for name in (one, other))
    if inner.startswith(outer):
      raise DataError(f'data.options.{one} is {given[one]}, which lies in data.options.{other} '
                      f'{given[other]}; the same images would be in two splits: separate them.')


def _subfolders(folder: str) -> list[str]:
  """The classes: the sorted names of the subfolders of `folder`."""
  import tensorflow as tf

  root = folders.root(folder)
  if not folders.is_folder(root):
    raise DataError(f'{folder}: no such folder (data.options.train).')
  names = [name.rstrip('/') for name in tf.io.gfile.listdir(root)]
  return sorted(n for n in names
                if not folders.is_hidden(n) and tf.io.gfile.isdir(posixpath.join(root, n)))


def _labels(folder: str, paths: np.ndarray, names: list[list[str]], classes: list[str]
            ) -> np.ndarray:
  """The class number of each path, int32 [N]; `names` has the parts of the paths in the folder."""
  loose = [path for path, parts in zip(paths, names) if len(parts) == 1]
  if loose:
    raise DataError(f'{folder} has {counted(len(loose), "image")} outside the class folders, '
                    f'the first {loose[0]}; move images into class folders, or give '
                    '--config.data.options.labels=none for unlabelled images.')
  own = {parts[0] for parts in names}
  unknown = sorted(own - set(classes))
  if unknown:
    raise DataError(f'{folder} has {counted(len(unknown), "class", "classes")} that the training '
                    f'folder does not have, the first {unknown[0]!r}; rename or remove it.')
  empty = sorted(set(_subfolders(folder)) - own)
  if empty:
    raise DataError(f'{folder} has {counted(len(empty), "class folder")} without images, the first '
                    f'{folders.root(folder)}/{empty[0]}; add images, or remove the empty folders.')
  number = {name: i for i, name in enumerate(classes)}
  return np.array([number[parts[0]] for parts in names], np.int32)
