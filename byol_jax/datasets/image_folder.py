"""Folders of image files: one subfolder per class, or unlabelled images at any depth.

Read through TensorFlow's file system layer, so that `gs://` paths work like local ones.
JPEG, PNG, GIF (first frame), BMP and WebP; gray, CMYK, 16-bit and transparent images
become RGB. Files with other endings, and files and folders whose names start with a
dot, are left out.
"""

from collections.abc import Iterator
import hashlib
import itertools
import math
import os
import posixpath
from typing import Any

import numpy as np

from byol_jax import balanced, hashing
from byol_jax.datasets import TOGETHER, DataError, Shards, Stream, Subset

ENDINGS = ('.jpg', '.jpeg', '.png', '.gif', '.bmp', '.webp')
LABELS = ('folders', 'none')


def load(split: str, *, shards: Shards, train: str, validation: str | None, test: str | None,
         labels: str, validation_share: float, subset_share: float = 1., subset_seed: int = 0
         ) -> Stream:
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
      subset (balanced.py), which the Stream names.
    subset_seed: draws the subset; the held-out images do not depend on it.

  Raises:
    DataError: a folder is missing or has no images, a class has none, the classes of two
      folders differ, or a subset cannot be balanced.
  """
  if labels not in LABELS:
    raise DataError(f"data.options.labels is {labels!r}; it can be 'folders' or 'none'.")
  if not 0 <= validation_share < 1:
    raise DataError(f'data.options.validation_share is {validation_share}, outside [0, 1).')
  _check_apart(train=train, validation=validation, test=test)
  if split == 'test' and not test:
    raise DataError('There is no test split: set data.options.test to its folder.')
  classes = _subfolders(train) if labels == 'folders' else None
  parts, subset = [], None
  if split in ('train', TOGETHER) or split == 'validation' and not validation:
    paths, numbers = _listed(train, classes)
    share = 0. if validation else validation_share
    held = hashing.permutation(len(paths), 0)[:math.ceil(share * len(paths))]
    rows, subset = balanced.of_training(
        split, np.arange(len(paths)), held, lambda: balanced.one_label_each(numbers, train),
        len(classes or ()), subset_share, subset_seed)
    if not len(rows):
      raise DataError(f'{train}: the {split} split is empty with {len(paths)} images and '
                      f'data.options.validation_share {validation_share}.')
    parts.append((paths[rows], None if numbers is None else numbers[rows]))
  if validation and split in ('validation', TOGETHER):
    parts.append(_listed(validation, classes))
  if split == 'test':
    parts.append(_listed(test, classes))
  paths, numbers = zip(*parts)
  return stream(np.concatenate(paths), None if classes is None else np.concatenate(numbers),
                len(classes or ()), shards, subset)


def _listed(folder: str, classes: list[str] | None) -> tuple[np.ndarray, np.ndarray | None]:
  """Paths and class numbers of a folder's images; None for unlabelled ones."""
  paths = images(folder)
  return paths, None if classes is None else _labels(folder, paths, classes)


def check_split(split: str, *, train: str, test: str | None, labels: str, **_) -> None:
  """Raises DataError if a split cannot be read, without opening an image."""
  if split == 'test':
    load(split, shards=Shards(), train=train, validation=None, test=test, labels=labels,
         validation_share=0.)


def _check_apart(**folders: str | None) -> None:
  given = [name for name, folder in folders.items() if folder]
  for one, other in itertools.permutations(given, 2):
    inner, outer = (os.path.realpath(_root(folders[name])) + '/' for name in (one, other))
    if inner.startswith(outer):
      raise DataError(f'data.options.{one} is {folders[one]}, which lies in data.options.{other} '
                      f'{folders[other]}; the same images would be in two splits.')


def _root(folder: str) -> str:
  return os.path.expanduser(folder).rstrip('/')


def other_files(folder: str) -> int:
  """How many files below a folder are left out: other endings, or a dot before a name."""
  import tensorflow as tf

  total = sum(len(files) for _, files, _ in _folders(_root(folder), tf))
  return total - len(images(folder))


def _folders(root: str, tf) -> Iterator[tuple[str, list[str], bool]]:
  """(path, names of files, hidden by a dot) of a folder and those below it, each once."""
  seen = set()
  for parent, _, files in tf.io.gfile.walk(root):
    hidden = '/.' in parent[len(root):]
    # A link to a folder above would give every image again and again.
    place = hidden, parent if '://' in parent else os.path.realpath(parent)
    if place not in seen:
      seen.add(place)
      yield parent, files, hidden


def images(folder: str) -> np.ndarray:
  """The paths of all images below a folder, sorted, as an object array of str.

  Raises:
    DataError: there is no such folder, or no image in it.
  """
  import tensorflow as tf

  root = _root(folder)
  if not tf.io.gfile.isdir(root):
    raise DataError(f'{folder}: no such folder (data.options).')
  found, others = [], 0
  try:
    for parent, files, hidden in _folders(root, tf):
      if hidden:
        continue
      own = [file for file in files
             if file.lower().endswith(ENDINGS) and not file.startswith('.')]
      found += [posixpath.join(parent, file) for file in own]
      others += len(files) - len(own)
  except UnicodeDecodeError as error:
    raise DataError(f'{folder} has a file whose name is not UTF-8 ({error}); rename it.') from error
  if not found:
    raise DataError(f'{folder} has no images: {others} files, none with the ending '
                    f'{", ".join(ENDINGS)}.')
  return np.array(sorted(found), object)


def _subfolders(folder: str) -> list[str]:
  """The classes: names of the folders in `folder`, sorted."""
  import tensorflow as tf

  root = _root(folder)
  if not tf.io.gfile.isdir(root):
    raise DataError(f'{folder}: no such folder (data.options.train).')
  names = [name.rstrip('/') for name in tf.io.gfile.listdir(root)]
  return sorted(n for n in names
                if not n.startswith('.') and tf.io.gfile.isdir(posixpath.join(root, n)))


def _labels(folder: str, paths: np.ndarray, classes: list[str]) -> np.ndarray:
  """The class number of each path, int32 [N]."""
  root = _root(folder) + '/'
  names = [path[len(root):].split('/') for path in paths]
  loose = [path for path, parts in zip(paths, names) if len(parts) == 1]
  if loose:
    raise DataError(f'{loose[0]} and {len(loose) - 1} more images lie outside of the class '
                    "folders; move them, or set data.options.labels='none' for unlabelled images.")
  own = {parts[0] for parts in names}
  unknown = sorted(own - set(classes))
  if unknown:
    raise DataError(f'{folder} has the class {unknown[0]!r}, and {len(unknown) - 1} more, that '
                    'the training folder has not.')
  empty = sorted(set(_subfolders(folder)) - own)
  if empty:
    raise DataError(f'{posixpath.join(root, empty[0])} has no images, and {len(empty) - 1} more '
                    'class folders have none; add images or remove the folders.')
  number = {name: i for i, name in enumerate(classes)}
  return np.array([number[parts[0]] for parts in names], np.int32)


def stream(paths: np.ndarray, labels: np.ndarray | None, num_classes: int, shards: Shards,
           subset: Subset | None = None) -> Stream:
  """The image files of these paths; labels int32 [N], None for unlabelled ones."""
  import tensorflow as tf

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

  sizes = np.array([len(range(v, total, shards.total)) for v in range(shards.total)])
  return Stream(records, read, sizes, lambda sample_id: str(paths[sample_id]), lambda: '', total,
                num_classes, subset=subset, files=paths, identity=_identity(paths, labels),
                labels=labels)


def _identity(paths: np.ndarray, labels: np.ndarray | None) -> str:
  """A digest of the files in their order and of their labels."""
  digest = hashlib.sha256('\n'.join(paths).encode())
  digest.update(b'' if labels is None else labels.tobytes())
  return digest.hexdigest()
