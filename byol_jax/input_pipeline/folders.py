"""Lists folders of image files: images, files that are left out, splits of a data set.

Folders are read through TensorFlow's file system layer, so that `gs://` paths work like local ones.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import os
import posixpath
import re
import shlex
from typing import NamedTuple

import numpy as np

from byol_jax import files
from byol_jax.errors import counted
from byol_jax.input_pipeline import file_kinds, image_files
from byol_jax.input_pipeline.records import DataError

HIDDEN, BARE = 'hidden', 'without an ending'
# Largest number of classes, and of file extensions, that are all named on the screen.
NAMED = 12
# Words in folder names that stand for a split, and words next to them that mean nothing.
SPLIT = re.compile(r'(train|val|dev|eval|holdout|test|pred|query|gallery)'
                   r'(?:ing|id|idation|uation|val)?(?:set|split|data|images?|imgs?)*')
NEUTRAL = ('set', 'split', 'data', 'image', 'images', 'img', 'imgs')
SPLITS = dict(train='train', val='validation', dev='validation', eval='validation',
              holdout='validation', test='test', pred='test', query='query', gallery='gallery')


class Listing(NamedTuple):
  """The files below a folder.

  folder: the folder as it was given.
  paths: object [N] of str, the images, sorted.
  others: how many files are left out, by their extension in lower case, by HIDDEN (their name, or
    the name of a folder above them, starts with a dot), or by BARE.
  """

  folder: str
  paths: np.ndarray
  others: Mapping[str, int]

  def inside(self) -> list[list[str]]:
    """The parts of each image's path, relative to the folder."""
    length = len(root(self.folder)) + 1
    return [path[length:].split('/') for path in self.paths]

  def left_out(self) -> str:
    """A line that counts the files that are not images; '' if there are none."""
    if not self.others:
      return ''
    counts = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
    named = [f'{count} {_printable(ending)}' + _remedy(ending) for ending, count in counts[:NAMED]]
    if counts[NAMED:]:
      named.append(f'{sum(count for _, count in counts[NAMED:])} with other endings')
    many = counted(sum(self.others.values()), f'file in {self.folder} is',
                   f'files in {self.folder} are')
    return f'{many} left out, leaving {counted(len(self.paths), "image")}: {", ".join(named)}'


def _remedy(ending: str) -> str:
  return f' ({image_files.OPTIONAL[ending]})' if ending in image_files.OPTIONAL else ''


def is_hidden(name: str) -> bool:
  """Whether a name is left out: it starts with a dot, or macOS adds it to zip archives."""
  return name.startswith('.') or name == '__MACOSX'


def root(folder: str) -> str:
  """The folder in the form in which the paths of its files begin."""
  return os.path.expanduser(folder).rstrip('/')


def is_folder(path: str) -> bool:
  """Whether the folder exists; raises DataError for an object store that does not answer."""
  import tensorflow as tf

  if tf.io.gfile.isdir(path):
    return True
  try:
    # `isdir` also returns False if the store does not answer.
    tf.io.gfile.exists(path)
  except tf.errors.OpError as error:
    raise DataError(f'{path} cannot be read: {" ".join(error.message.split())}. '
                    f'{files.REACHABLE}') from error
  return False


def read(folder: str) -> Listing:
  """Lists a folder without opening any image.

  Raises:
    DataError: the folder does not exist, or has no images.
  """
  import tensorflow as tf

  top, endings = root(folder), image_files.endings()
  if not is_folder(top):
    if tf.io.gfile.exists(top):
      raise DataError(f'{folder} is {file_kinds.kind(top)}; a folder of images is needed '
                      '(data.options).')
    raise DataError(f'{folder}: no such folder (data.options).')
  found, others = [], collections.Counter()
  try:
    for parent, files, hidden in _folders(top, tf):
      for file in files:
        ending = posixpath.splitext(file)[1].lower()
        if hidden or is_hidden(file):
          others[HIDDEN] += 1
        elif ending in endings:
          found.append(posixpath.join(parent, file))
        else:
          others[ending or BARE] += 1
  except UnicodeDecodeError as error:
    raise DataError(f'{folder} has a file whose name is not UTF-8 ({error}); rename it.') from error
  listing = Listing(folder, np.array(sorted(found), object), others)
  if not found:
    raise DataError(f'{folder} has no images: {counted(sum(others.values()), "file")}, none with '
                    f'the ending {", ".join(endings)}. {listing.left_out()}'.strip())
  return listing


def _folders(top: str, tf) -> Iterator[tuple[str, list[str], bool]]:
  """(path, names of files, hidden by a dot) of a folder and of all folders below it, each once."""
  seen = set()
  for parent, _, names in tf.io.gfile.walk(top):
    hidden = any(map(is_hidden, parent[len(top):].split('/')))
    # A link to a folder above would list every image again and again.
    place = hidden, parent if '://' in parent else os.path.realpath(parent)
    if place not in seen:
      seen.add(place)
      yield parent, names, hidden


def summary(folder: str, labels: np.ndarray | None, names: Sequence[str]) -> str:
  """A line on the number of images in each class of a split.

  Args:
    folder: folder of the images.
    labels: int [N]; None for unlabelled images, which need no line.
    names: names of the classes.
  """
  if labels is None:
    return ''
  counts = np.bincount(labels, minlength=len(names))
  text = lambda row: f'{_printable(names[row])} {counts[row]}'
  if len(names) <= NAMED:
    listed = ', '.join(map(text, range(len(names))))
  else:
    low, high = int(counts.argmin()), int(counts.argmax())
    listed = (f'{", ".join(map(text, range(5)))}, ..., {text(len(names) - 1)} ({len(names)} '
              f'classes; fewest: {text(low)}, most: {text(high)})')
  return f'images of {folder} by class: {listed}'


def _printable(name: str) -> str:
  return name if name.isprintable() else repr(name)


def check_one_split(listing: Listing, *, labelled: bool,
                    options: Sequence[str] = ('train', 'validation', 'test')) -> None:
  """Raises DataError if a folder contains the splits of a data set instead of a single split.

  This is the case if folders such as `train` and `val` of two or more splits are at least half of
  all folders with images; or, for classes, if the only folder is such a folder. A class `train`
  among `cat` and `dog` is a class. Splits within one folder, or within each of several folders, are
  also found.

  Args:
    listing: listing of the folder.
    labelled: whether the subfolders are meant to be classes.
    options: keys of `data.options` to which the splits could be given.
  """
  parts, top = listing.inside(), root(listing.folder)
  while True:
    names = sorted({one[0] for one in parts if len(one) > 1})
    splits = _splits(names)
    alone = (labelled and top == root(listing.folder) and len(names) == 1 == len(splits)
             and not _split(names[0])[1])
    if len(splits) > 1 and 2 * sum(bool(_split(name)[0]) for name in names) >= len(names) or alone:
      raise DataError(
          f'{top} holds the splits of a data set ({", ".join(splits.values())}), which are not '
          f'{"classes" if labelled else "all for training"}. {_meant(top, splits, options)} If '
          'they are all one split, rename the folders.')
    if len(names) != 1 or any(len(one) == 1 for one in parts):
      break
    top, parts = f'{top}/{names[0]}', [one[1:] for one in parts]
  inner = {one[1] if len(one) > 2 else '' for one in parts}
  if all(_split(name)[0] for name in inner) and len(_splits(sorted(inner))) > 1:
    raise DataError(
        f'Each folder in {top} holds the splits of a data set ({", ".join(sorted(inner))}). Make '
        f'a folder for each split, with the folders of {top} in it, or links to them.')


def _meant(top: str, splits: Mapping[str, str], options: Sequence[str]) -> str:
  """Tells the user what to do with the folders that `_splits` has found."""
  given = ' '.join(f'--config.data.options.{split}={shlex.quote(f"{top}/{name}")}'
                   for split, name in splits.items() if split in options)
  parts = [f'Give each of them: {given}.'] if given else []
  if 'train' not in splits:
    parts.append('None of them is for training: --config.data.options.train needs the folder of '
                 'the training images.')
  if 'query' in splits and 'test' in options:
    parts.append('Queries and a gallery are read with experiments/configs/eval/retrieval.py.')
  return ' '.join(parts)


def _split(name: str) -> tuple[str, tuple[str, ...]]:
  """The split that a folder's name stands for ('' for other names), and its other words."""
  words = list(filter(None, re.split(r'[^a-z]+', name.casefold())))
  found = [(place, match) for place, word in enumerate(words) if (match := SPLIT.fullmatch(word))]
  if len(found) != 1:
    return '', ()
  (own, match), = found
  return SPLITS[match[1]], tuple(
      word for place, word in enumerate(words) if place != own and word not in NEUTRAL)


def _splits(names: Sequence[str]) -> dict[str, str]:
  """The first folder of each split, among the folders whose other words are the same."""
  groups: dict[tuple[str, ...], dict[str, str]] = {}
  for name in names:
    split, words = _split(name)
    if split:
      groups.setdefault(words, {}).setdefault(split, name)
  found = max(groups.values(), key=len, default={})
  return {split: found[split] for split in dict.fromkeys(SPLITS.values()) if split in found}
