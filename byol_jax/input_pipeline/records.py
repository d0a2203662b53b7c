"""Data sets: one file each, one contract.

A data set is a module with one function::

    load(split, *, shards, **options) -> Split or Stream

`split` is 'train', 'validation' (held-out training images, on which choices are
made), 'test', or 'train+validation', the first two together. `shards` says which
records this host owns; a module reads or makes only those. A `Split` holds its images
in memory, all of one size; a `Stream` says how to read them from disk, of whatever
size. Options come from `config.data.options`; what they can be, the module says in `RANGES`
(`plugins.function`). A module raises `DataError` with what is
wrong, where, and what to do.

Its constant `LOCATION_OPTIONS`, where there is one, names the options that say only where
the data lie: the same data in another place are the same run. None, for data that do not
exist, is another run than a path, unless `load` has a default for the option.

`read` is the one reader of the project: it loads the module by name (or by any
dotted path) and notes every access to a split in the access log, so that a
result can show that its test split was read once, last.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax.errors import InputError

TOGETHER = 'train+validation'
SPLITS = ('train', 'validation', 'test', TOGETHER)


class DataError(InputError):
  """A data set that is missing, empty or of the wrong shape."""


class Shards(NamedTuple):
  """The records that one host owns: those whose id modulo `total` is in `owned`.

  `total` is the number of virtual shards, a constant of the run, so that what
  a shard holds does not depend on the number of hosts.
  """

  total: int = 1
  owned: tuple[int, ...] = (0,)

  def sample_ids(self, num_examples: int) -> np.ndarray:
    """The owned ids out of 0 ... num_examples - 1, ascending, int32 [n]."""
    ids = np.arange(num_examples, dtype=np.int32)
    return ids[np.isin(ids % self.total, self.owned)]


class Subset(NamedTuple):
  """Which training images a balanced subset has.

  name: what it was drawn with, for a file's name.
  rows: int64 [n], their places in the whole training split, ascending.
  """

  name: str
  rows: np.ndarray


class Files(NamedTuple):
  """The files that training and held-out images come from.

  names: N names, each once, that stay the same wherever the data lie: 'train/cat/1.jpg'.
  paths: where each file lies.
  order: a digest of what names and files do not tell: the order and the labels of a list.
  packed: a file holds many images and is large: its name and size alone are compared.
  """

  names: Sequence[str]
  paths: Sequence[str]
  order: str = ''
  packed: bool = False


class Split(NamedTuple):
  """Records held in memory, in the order of their ids.

  sample_id: int32 [n], the ids owned by this host.
  images: uint8 [n, H, W, 3].
  labels: int32 [n], or None for unlabelled data; int32 [n, num_classes] where an image has
    several classes: 1 present, 0 absent, -1 not to be judged.
  num_examples: records in the split over all hosts.
  num_classes: classes in the data set; 0 for unlabelled data.
  subset: the balanced subset of the training images that it holds; None for all of them.
  origin: of the training split, the files of training and held-out images; None where the
    images come from no files, or the module does not name them.
  class_names: of the classes 0 ... num_classes - 1; () where they have none.
  summary: a line on what the split holds, printed as it is opened; '' for none.
  left_out: a line on the files beside its images that are not used; '' for none.
  """

  sample_id: np.ndarray
  images: np.ndarray
  labels: np.ndarray | None
  num_examples: int
  num_classes: int
  subset: Subset | None = None
  origin: Files | None = None
  class_names: tuple[str, ...] = ()
  summary: str = ''
  left_out: str = ''

  @property
  def multi_label(self) -> bool:
    """Whether an image has several classes."""
    return self.labels is not None and self.labels.ndim == 2


class Stream(NamedTuple):
  """Records on disk, read as they are needed.

  records: (shard, seed) -> tf.data.Dataset of the records of one virtual shard,
    dicts of tensors with `sample_id`, int32. `shard` is a scalar tensor. `seed`, an
    integer tensor [2], draws their order; None gives the order of ids.
  read: record -> dict of `encoded`, the file's bytes, and `labels`, int32 [] or
    [num_classes] as in `Split`, if there are any. Not called for the records that a
    resumed run skips.
  shard_sizes: int64 [shards.total], records in each virtual shard.
  source: sample_id -> where the record lies, for messages.
  diagnose: () -> which file is damaged, after reading has failed; '' if none is found.
  num_examples: records in the split over all hosts.
  num_classes: classes in the data set; 0 for unlabelled data.
  multi_label: whether an image has several classes.
  subset: the balanced subset of the training images that it holds; None for all of them.
  files: that hold the records.
  identity: a digest of which records of these files it holds, in which order, and of labels
    that do not stand in the files; '' where the module gives none.
  origin: () -> what it is in `Split`: names of many files are made when they are needed.
  class_names: as in `Split`, as are the next two.
  summary: likewise.
  left_out: likewise.
  decode: encoded, a scalar string -> uint8 [H, W, 3]; None for `preprocess.decode`.
  reason: sample_id -> why its image cannot be read; None where that cannot be told.
  labels: of all records in the order of their ids, where they are known without reading these.
  """

  records: Callable[..., Any]
  read: Callable[..., Any]
  shard_sizes: np.ndarray
  source: Callable[[int], str]
  diagnose: Callable[[], str]
  num_examples: int
  num_classes: int
  multi_label: bool = False
  subset: Subset | None = None
  files: Sequence[str] = ()
  identity: str = ''
  origin: Callable[[], Files] | None = None
  class_names: tuple[str, ...] = ()
  summary: str = ''
  left_out: str = ''
  decode: Callable[[Any], Any] | None = None
  reason: Callable[[int], str] | None = None
  labels: np.ndarray | None = None

  def unreadable(self, sample_id: int) -> str:
    """A part of a sentence: which image cannot be read, and why as far as that is known."""
    because = self.reason(sample_id) if self.reason else ''
    return f'{self.source(sample_id)} cannot be read as an image' + (because and f': {because}')


def class_name(names: Sequence[str], label: int) -> str:
  """As pages call a class: its name, or 'class 3' where classes have none."""
  return names[label] if names else f'class {label}'


def numbered(names: Sequence[str], label: int) -> str:
  """As errors call a class: its number, and its name where it has one: '3 ('cat')'."""
  return f'{label} ({names[label]!r})' if label < len(names) else str(label)


def check_labels(where: str, labels: np.ndarray, num_classes: int) -> None:
  """Raises DataError unless all labels lie in their range.

  That is 0 ... num_classes - 1 for labels [N], and -1 ... 1 for labels [N, num_classes].
  """
  if not out_of_range(labels, num_classes).any():
    return
  if labels.ndim == 2:
    raise DataError(f'{where}: labels of several classes run from {labels.min()} to '
                    f'{labels.max()}; they can be 1 (present), 0 (absent), -1 (not judged).')
  raise DataError(f'{where}: labels run from {labels.min()} to {labels.max()}, '
                  f'outside 0 ... {num_classes - 1}; number the classes from 0 and '
                  'check num_classes. (A split whose labels are secret has -1.)')


def out_of_range(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Which of the images have labels out of their range, bool [N]; as in `check_labels`."""
  if labels.ndim == 2:
    return (np.abs(labels) > 1).any(axis=1)
  return (labels < 0) | (labels >= num_classes)


def one_host(index: int, count: int, total: int) -> Shards:
  """The virtual shards of host `index` of `count`: a contiguous run of them."""
  if total % count:
    raise DataError(
        f'data.virtual_shards is {total}, which {count} hosts cannot share '
        f'equally; set it to a multiple of {count}.')
  each = total // count
  return Shards(total, tuple(range(index * each, (index + 1) * each)))


class Known(NamedTuple):
  """What is known of a split without reading its images.

  images: how many it has, over all hosts.
  labels: int32 [N], or [N, num_classes] of several classes, in the order of the ids; None where
    there are none, or only the records say them.
  """

  images: int
  labels: np.ndarray | None
