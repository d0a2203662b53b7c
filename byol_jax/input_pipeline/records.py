"""The contract of data sets: what a plug-in lists, and what is read of it.

A data set is a module with one function::

    records(part, **options) -> Records or None

It lists the records of a part, 'train', 'validation' or 'test', in an order that stays. For
'validation' it returns None where the set has no such part of its own; `splits` then holds images
out of 'train'. A missing test part is a `DataError` that names the option to set. The module
does not hold out, subset, shuffle, shard or decode: `splits` and the stores do that for all sets.

Options come from `config.data.options`. `OPTIONS` of the module gives their defaults, `RANGES`
what they can be, and `check_options(**options)` rejects what cannot be together
(`plugins.function`). `RANGES` names the options of `splits` that its configs have as well
(`splits.SHARE`, `splits.HELD_OUT`, `splits.SUBSET`), which are not passed to `records`. A module
raises `DataError` with what is wrong, where, and what to do.

Its constant `LOCATION_OPTIONS`, where there is one, names the options that say only where
the data lie: the same data in another place are the same run. None, for data that do not
exist, is another run than a path, unless `records` has a default for the option.

A set of queries and a gallery gives the `retrieval_lists.Roles` of its test part in
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


class Records(NamedTuple):
  """The N records of a part of a data set, in an order that stays.

  where: what messages call them: a folder, a file, the name of a set.
  store: reads the images by their rows 0 ... N - 1: `memory.Arrays`, `listed_files.ImageFiles` or
    `tfrecords.RecordFiles`.
  labels: integers [N], or [N, num_classes] where an image has several classes; None for
    unlabelled images, and where the store reads each label with its image.
  num_classes: classes in the data set; 0 where it has none.
  multi_label: whether an image has several classes: 1 present, 0 absent, -1 not to be judged.
  class_names: of the classes 0 ... num_classes - 1; () where they have none.
  read_labels: () -> int [N], where the store reads the labels: one pass over them. None for
    unlabelled images and those of several classes.
  rows: int64 [M], the records that take part, in the order from which held-out images are
    drawn; None for all of them.
  image_ids: () -> [N] values that are equal for the same image in two parts. Images for
    validation that are training images too are left out; None leaves none out.
  files: () -> the files that the records come from; None where they come from none.
  summary: labels of a split -> a line on it, printed as it is opened, '' for none.
  left_out: a line on the files beside the images that are not used; '' for none.
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
  """The images of a split: records of one part or of two, not read yet.

  where: what messages call the split.
  store: of these images, in the order of their sample ids.
  labels: of these images, as in `Records`, as are the next three.
  num_classes: likewise.
  multi_label: likewise.
  class_names: likewise.
  subset: the balanced subset of the training images among them; None for all of them.
  origin: () -> the files of training and held-out images, for a split that has some of the
    training part; None where they come from no files.
  summary: a line on the split, printed as it is opened; '' for none.
  left_out: a line on the files beside its images that are not used; '' for none.
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
    """How many images the split has, over all hosts."""
    return self.store.count

  def about(self) -> dict[str, Any]:
    """What an opened split says of itself: fields of `memory.Split` and `streams.Stream`."""
    return dict(num_examples=self.num_examples, num_classes=self.num_classes, subset=self.subset,
                origin=self.origin, class_names=self.class_names, summary=self.summary,
                left_out=self.left_out)


class Store(Protocol):
  """Images in an order that stays, which are read by their places in it.

  count: how many there are.
  """

  count: int

  def take(self, rows: np.ndarray) -> 'Store':
    """The images of these rows, int64 [n]."""

  def followed_by(self, other: 'Store') -> 'Store':
    """These images, and then those of another store of the same kind."""

  def check(self) -> None:
    """Raises DataError where files are missing, without reading an image."""

  def open(self, selected: Selected, shards: 'Shards'):
    """This host's part of the split whose store this is: a `memory.Split`, or a
    `streams.Stream` of images that are read as they are needed."""

  def in_memory(self, selected: Selected, shards: 'Shards', workers: int):
    """This host's part as a `memory.Split`; `workers` images are decoded at once, 0 lets
    tf.data decide. Raises DataError for images that cannot be read, or of several sizes."""


class Known(NamedTuple):
  """What is known of a split without reading its images.

  images: how many it has, over all hosts.
  labels: int32 [N], or [N, num_classes] of several classes, in the order of the ids; None where
    there are none, or only the records say them.
  """

  images: int
  labels: np.ndarray | None


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
