"""The contract of data sets: what a plug-in lists, and how it is read.

A data set is a module with one function::

    records(part, **options) -> Records or None

It lists the records of a part, 'train', 'validation' or 'test', in a fixed order. For 'validation'
it returns None if the data set has no such part of its own; `splits` then holds out images from
'train'. If there is no test part, it raises a `DataError` that names the option to set. The module
does not hold out, subset, shuffle, shard or decode: `splits` and the stores do this for all data
sets.

Options come from `config.data.options`. The module's `OPTIONS` has their defaults, `RANGES` their
allowed values, and `check_options(**options)` rejects values that do not go together
(`plugins.function`). `RANGES` also has the options of `splits` that the module's configs have
(`splits.SHARE`, `splits.HELD_OUT`, `splits.SUBSET`), which are not passed to `records`. A module
raises `DataError` with a message that says what is wrong, where, and what to do.

Its optional constant `LOCATION_OPTIONS` names the options that say only where the data are
stored: the same data in another place are the same run. None, for data that do not exist, and a
path are different runs, unless `records` has a default for the option.

A data set with queries and a gallery returns the `retrieval_lists.Roles` of its test part in
`roles(**options)`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from byol_jax.errors import InputError

TOGETHER = 'train+validation'
PARTS = ('train', 'validation', 'test')
SPLITS = (*PARTS, TOGETHER)


class DataError(InputError):
  """A data set is missing, is empty or has the wrong shape."""


class Shards(NamedTuple):
  """The records that one host owns: those whose id modulo `total` is in `owned`.

  `total` is the number of virtual shards. It is a constant of the run, so that the content of
  a shard does not depend on the number of hosts.
  """

  total: int = 1
  owned: tuple[int, ...] = (0,)

  def sample_ids(self, num_examples: int) -> np.ndarray:
    """The owned ids out of 0 ... num_examples - 1, ascending, int32 [n]."""
    ids = np.arange(num_examples, dtype=np.int32)
    return ids[np.isin(ids % self.total, self.owned)]


class Subset(NamedTuple):
  """The training images in a balanced subset.

  name: the settings it was drawn with, for a file's name.
  rows: int64 [n], their places in the whole training split, ascending.
  """

  name: str
  rows: np.ndarray


class Files(NamedTuple):
  """The files that training and held-out images come from.

  names: N unique names, which do not depend on where the data are stored: 'train/cat/1.jpg'.
  paths: the path of each file.
  order: a digest of what names and files do not determine: the order and the labels of a list.
  packed: whether files are large and contain many images: only their names and sizes are compared.
  """

  names: Sequence[str]
  paths: Sequence[str]
  order: str = ''
  packed: bool = False


class Records(NamedTuple):
  """The N records of a part of a data set, in a fixed order.

  where: what messages call the records: a folder, a file, the name of a data set.
  store: reads the images by their rows 0 ... N - 1: `memory.Arrays`, `listed_files.ImageFiles` or
    `tfrecords.RecordFiles`.
  labels: integers [N], or [N, num_classes] if an image can have several classes; None for
    unlabelled images, and if the store reads each label with its image.
  num_classes: number of classes in the data set; 0 if it has none.
  multi_label: whether an image can have several classes: 1 present, 0 absent, -1 ignored.
  class_names: names of the classes 0 ... num_classes - 1; () if they have no names.
  read_labels: () -> int [N], if the store reads the labels; takes one pass over them. None for
    unlabelled images and images with several classes.
  rows: int64 [M], the records that are used, in the order from which held-out images are
    drawn; None for all of them.
  image_ids: () -> [N] values that are equal for the same image in two parts. Validation images
    that are also training images are left out; None leaves none out.
  files: () -> the files that the records come from; None if they do not come from files.
  summary: labels of a split -> a line on the split, printed when it is opened; '' for none.
  left_out: a line on other files next to the images, which are not used; '' for none.
  """

  where: str
  store: 'Store'
  labels: np.ndarray | None
  num_classes: int
  multi_label: bool = False
  class_names: tuple[str, ...] = ()
  read_labels: Callable[[], np.ndarray] | None = None
  rows: np.ndarray | None = None
  image_ids: Callable[[], np.ndarray] | None = None
  files: Callable[[], Files] | None = None
  summary: Callable[[np.ndarray | None], str] = lambda labels: ''
  left_out: str = ''


class Selected(NamedTuple):
  """The images of a split, which are records of one or two parts that have not been read yet.

  where: what messages call the split.
  store: store of these images, in the order of their sample ids.
  labels: labels of these images, as in `Records`.
  num_classes: as in `Records`.
  multi_label: as in `Records`.
  class_names: as in `Records`.
  subset: the balanced subset of the training images in the split; None for all of them.
  origin: () -> the files of training and held-out images, for a split with images of the
    training part; None if they do not come from files.
  summary: a line on the split, printed when it is opened; '' for none.
  left_out: a line on other files next to its images, which are not used; '' for none.
  """

  where: str
  store: 'Store'
  labels: np.ndarray | None
  num_classes: int
  multi_label: bool
  class_names: tuple[str, ...]
  subset: Subset | None
  origin: Callable[[], Files] | None
  summary: str
  left_out: str

  @property
  def num_examples(self) -> int:
    """The number of images in the split over all hosts."""
    return self.store.count

  def about(self) -> dict[str, Any]:
    """The fields that describe an opened split, a `memory.Split` or `streams.Stream`."""
    return dict(num_examples=self.num_examples, num_classes=self.num_classes, subset=self.subset,
                origin=self.origin, class_names=self.class_names, summary=self.summary,
                left_out=self.left_out)


class Store(Protocol):
  """Images in a fixed order, which are read by their places in it.

  count: number of images.
  """

  count: int

  def take(self, rows: np.ndarray) -> 'Store':
    """The images of these rows, int64 [n]."""

  def followed_by(self, other: 'Store') -> 'Store':
    """These images, followed by the images of another store of the same kind."""

  def check(self) -> None:
    """Raises DataError if files are missing, without reading an image."""

  def open(self, selected: Selected, shards: 'Shards'):
    """Opens this host's part of the split that has this store: a `memory.Split`, or a
    `streams.Stream` of images that are read when they are needed."""

  def in_memory(self, selected: Selected, shards: 'Shards', workers: int):
    """Reads this host's part as a `memory.Split`; `workers` images are decoded at once, 0 lets
    tf.data decide. Raises DataError if images cannot be read, or have different sizes."""


class Known(NamedTuple):
  """What is known about a split without reading its images.

  images: number of images over all hosts.
  labels: int32 [N], or [N, num_classes] for several classes, in the order of the ids; None if
    there are no labels, or if they are only in the records.
  """

  images: int
  labels: np.ndarray | None


def class_name(names: Sequence[str], label: int) -> str:
  """What pages call a class: its name, or 'class 3' if classes have no names."""
  return names[label] if names else f'class {label}'


def numbered(names: Sequence[str], label: int) -> str:
  """What errors call a class: its number, with its name if it has one: '3 ('cat')'."""
  return f'{label} ({names[label]!r})' if label < len(names) else str(label)


def check_labels(where: str, labels: np.ndarray, num_classes: int) -> None:
  """Raises DataError unless all labels are in range.

  The range is 0 ... num_classes - 1 for labels [N], and -1 ... 1 for labels [N, num_classes].
  """
  if not out_of_range(labels, num_classes).any():
    return
  if labels.ndim == 2:
    raise DataError(f'{where}: labels of several classes run from {labels.min()} to '
                    f'{labels.max()}; each must be 1 (present), 0 (absent) or -1 (not judged).')
  raise DataError(f'{where}: labels run from {labels.min()} to {labels.max()}, '
                  f'outside 0 ... {num_classes - 1}; number the classes from 0 and '
                  'check num_classes. (Splits with hidden labels have -1.)')


def out_of_range(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Which images have labels that are out of range, bool [N]; as in `check_labels`."""
  if labels.ndim == 2:
    return (np.abs(labels) > 1).any(axis=1)
  return (labels < 0) | (labels >= num_classes)


def one_host(index: int, count: int, total: int) -> Shards:
  """The virtual shards of host `index` of `count`, which are consecutive."""
  if total % count:
    raise DataError(
        f'data.virtual_shards is {total}, which {count} hosts cannot share '
        f'equally; set it to a multiple of {count}.')
  each = total // count
  return Shards(total, tuple(range(index * each, (index + 1) * each)))
