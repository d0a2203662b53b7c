"""Folders of image files: one subfolder per class, or unlabelled images at any depth.

JPEG, PNG, GIF, BMP, WebP and TIFF, of animations and of several pages the first; AVIF and HEIC
where the installed Pillow reads them. Gray, CMYK, 16-bit and transparent images become RGB, and
photographs are turned upright. Files with other endings, and files and folders whose names start
with a dot, are left out and counted (folders.py).
"""

from collections.abc import Iterable
import functools
import hashlib
import itertools
import math
import os
import posixpath
from typing import Any

import numpy as np

from byol_jax import ranges
from byol_jax.errors import counted
from byol_jax.input_pipeline import folders, image_files, splits
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import TOGETHER, DataError, Files, Shards, Stream, Subset

LABELS = ('folders', 'none')
LOCATION_OPTIONS = ('train', 'validation', 'test')
RANGES = dict(
    train=ranges.PATH, validation=ranges.optional(ranges.PATH), test=ranges.optional(ranges.PATH),
    labels=ranges.OneOf(LABELS), validation_share=ranges.number(0, 1, '[)'),
    exif_orientation=ranges.FLAG, **splits.RANGES)


def load(split: str, *, shards: Shards, train: str, validation: str | None, test: str | None,
         labels: str, validation_share: float, subset_share: float = 1., subset_seed: int = 0,
         exif_orientation: bool = True) -> Stream:
  """Lists a split; no image is opened yet.

  Args:
    split: 'train', 'validation', 'test' or 'train+validation'.
    shards: the records this host owns.
    train: folder of the training images.
    validation: folder of the held-out images; None draws them from `train`.
    test: folder of the test images; None where there is none.
    labels: 'folders': each subfolder of `train` is a class and holds its images at
      any depth, classes are numbered in the order of their names; 'none': unlabelled
      images at any depth.
    validation_share: in [0, 1); ceil(share * N) images of `train`, drawn by a hash of
      their place in the list, are held out unless `validation` is given.
    subset_share: of the training images that are not held out; below 1 a class-balanced
      subset (input_pipeline/splits.py), which the Stream names.
    subset_seed: draws the subset; the held-out images do not depend on it.
    exif_orientation: images are turned as their EXIF says; otherwise they are as stored.

  Raises:
    DataError: a folder is missing, has no images or holds several splits, a class has no
      images, the classes of two folders differ, or a subset cannot be balanced.
  """
  _check_apart(train=train, validation=validation, test=test)
  if split == 'test' and not test:
    raise DataError('There is no test split: set data.options.test to its folder.')
  classes = _subfolders(train) if labels == 'folders' else None
  parts, subset, left_out, origin = [], None, [], None
  if split in ('train', TOGETHER) or split == 'validation' and not validation:
    paths, numbers, others = _listed(train, classes, classes)
    origin = functools.partial(_files, train, paths, validation)
    # Those of the folder, once.
    left_out += [others] if split != 'validation' else []
    share = 0. if validation else validation_share
    held = permutation(len(paths), 0)[:math.ceil(share * len(paths))]
    rows, subset = splits.of_training(
        split, np.arange(len(paths)), held, lambda: splits.one_label_each(numbers, train),
        len(classes or ()), subset_share, subset_seed, classes or ())
    if not len(rows):
      raise DataError(f'{train}: the {split} split is empty with {len(paths)} images and '
                      f'data.options.validation_share {validation_share}.')
    parts.append((paths[rows], None if numbers is None else numbers[rows]))
  apart = [test] if split == 'test' else [validation] if split in ('validation', TOGETHER) else []
  for folder in filter(None, apart):
    *part, others = _listed(folder, classes, None)
    parts.append(part)
    left_out.append(others)
  paths, numbers = zip(*parts)
  numbers = None if classes is None else np.concatenate(numbers)
  where = apart[0] if apart and apart[0] and split != TOGETHER else train
  return stream(np.concatenate(paths), numbers, len(classes or ()), shards, subset,
                exif_orientation=exif_orientation)._replace(
                    class_names=tuple(classes or ()), left_out='; '.join(filter(None, left_out)),
                    summary=folders.summary(where, numbers, classes or ()), origin=origin)


def _files(train: str, paths: np.ndarray, validation: str | None) -> Files:
  """The files of the training folder, which are listed already, and of the held-out folder."""
  found = named('train', train, paths)
  if validation:
    found |= named('validation', validation, folders.read(validation).paths)
  return Files(list(found), list(found.values()))


def named(role: str, folder: str, paths: Iterable[str]) -> dict[str, str]:
  """{'train/cat/1.jpg': path} for the paths, most of them below the folder."""
  root = folders.root(folder) + '/'
  return {f'{role}/{path.removeprefix(root)}': path for path in paths}


def _listed(folder: str, classes: list[str] | None, own: list[str] | None
            ) -> tuple[np.ndarray, np.ndarray | None, str]:
  """Paths and class numbers of a folder's images, None for unlabelled ones; what is left out.

  Where the folder is not the one whose classes they are, `own` is None: a class `test` of the
  training images is one here too.
  """
  listing = folders.read(folder)
  inside = listing.inside()
  if own or not classes or not {parts[0] for parts in inside} <= set(classes):
    folders.check_one_split(listing, labelled=classes is not None)
  labels = None if classes is None else _labels(folder, listing.paths, inside, classes)
  return listing.paths, labels, listing.left_out()


def check_split(split: str, *, train: str, test: str | None, labels: str, **_) -> None:
  """Raises DataError if a split cannot be read, without opening an image."""
  if split == 'test':
    load(split, shards=Shards(), train=train, validation=None, test=test, labels=labels,
         validation_share=0.)


def _check_apart(**options: str | None) -> None:
  given = {name: folder for name, folder in options.items() if folder}
  for one, other in itertools.permutations(given, 2):
    inner, outer = (os.path.realpath(folders.root(given[name])) + '/' for name in (one, other))
    if inner.startswith(outer):
      raise DataError(f'data.options.{one} is {given[one]}, which lies in data.options.{other} '
                      f'{given[other]}; the same images would be in two splits.')


def _subfolders(folder: str) -> list[str]:
  """The classes: names of the folders in `folder`, sorted."""
  import tensorflow as tf

  root = folders.root(folder)
  if not folders.is_folder(root):
    raise DataError(f'{folder}: no such folder (data.options.train).')
  names = [name.rstrip('/') for name in tf.io.gfile.listdir(root)]
  return sorted(n for n in names
                if not folders.is_hidden(n) and tf.io.gfile.isdir(posixpath.join(root, n)))


def _labels(folder: str, paths: np.ndarray, names: list[list[str]], classes: list[str]
            ) -> np.ndarray:
  """The class number of each path, whose parts below the folder are `names`, int32 [N]."""
  loose = [path for path, parts in zip(paths, names) if len(parts) == 1]
  if loose:
    raise DataError(f'{folder} has {counted(len(loose), "image")} outside of the class folders, '
                    f'the first {loose[0]}; move what lies there, or give '
                    '--config.data.options.labels=none for unlabelled images.')
  own = {parts[0] for parts in names}
  unknown = sorted(own - set(classes))
  if unknown:
    raise DataError(f'{folder} has {counted(len(unknown), "class", "classes")} that the training '
                    f'folder has not, the first {unknown[0]!r}.')
  empty = sorted(set(_subfolders(folder)) - own)
  if empty:
    raise DataError(f'{folder} has {counted(len(empty), "class folder")} without images, the first '
                    f'{folders.root(folder)}/{empty[0]}; add images, or remove what is empty.')
  number = {name: i for i, name in enumerate(classes)}
  return np.array([number[parts[0]] for parts in names], np.int32)


def stream(paths: np.ndarray, labels: np.ndarray | None, num_classes: int, shards: Shards,
           subset: Subset | None = None, *, exif_orientation: bool) -> Stream:
  """The image files of these paths; labels int32 [N], None for unlabelled ones."""
  import tensorflow as tf

  from byol_jax.input_pipeline import preprocess

  total = len(paths)
  all_paths = tf.constant(paths)

  def records(shard: Any, seed: Any):
    # A small split may leave shards empty.
    ids = tf.range(tf.minimum(tf.cast(shard, tf.int32), total), total, shards.total)
    if seed is not None:
      ids = tf.random.experimental.stateless_shuffle(ids, seed)
    return tf.data.Dataset.from_tensor_slices(dict(sample_id=ids))

  def read(record):
    result = dict(encoded=tf.io.read_file(tf.gather(all_paths, record['sample_id'])))
    if labels is not None:
      result['labels'] = tf.gather(tf.constant(labels), record['sample_id'])
    return result

  def reason(sample_id: int) -> str:
    return image_files.reason(tf.io.gfile.GFile(paths[sample_id], 'rb').read())

  sizes = np.array([len(range(v, total, shards.total)) for v in range(shards.total)])
  return Stream(records, read, sizes, lambda sample_id: str(paths[sample_id]), lambda: '', total,
                num_classes, subset=subset, files=paths,
                identity=_identity(paths, labels, exif_orientation), reason=reason,
                decode=functools.partial(preprocess.decode_file, upright=exif_orientation),
                labels=labels)


def _identity(paths: np.ndarray, labels: np.ndarray | None, exif_orientation: bool) -> str:
  """A digest of the files in their order, of their labels, and of what is made of them."""
  digest = hashlib.sha256('\n'.join(paths).encode())
  digest.update(b'' if labels is None else labels.tobytes())
  digest.update(b'' if exif_orientation else b'as stored')
  return digest.hexdigest()
