"""From a config's `data` section to batches: the split, its pipeline, its bad images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

from etils import epath
import jax
import numpy as np

from byol_jax import files, plugins
from byol_jax.distributed import parallel, processes
from byol_jax.input_pipeline import changed_files, prefetch, splits
from byol_jax.input_pipeline.batches import HostBatch, evaluation_batches, train_batches
from byol_jax.input_pipeline.records import (
  DataError,
  Files,
  Known,
  Shards,
  Split,
  Stream,
  Subset,
  one_host,
)

ACCESS_LOG = 'splits_read.jsonl'
UNREADABLE = 'unreadable_images.txt'
SUBSET_ROWS = 'subset_rows_{}.txt'
# Unreadable images named on the screen; all are in the file.
NAMED = 20


class Loader(NamedTuple):
  """A split of a config's `data` section, as batches of this host.

  data: the split.
  config: the `data` section, plain.
  unreadable: what the input pipeline calls with the ids of unreadable images.
  names: the unreadable images so far.
  """

  data: Split | Stream
  config: Mapping[str, Any]
  unreadable: Callable[[Sequence[int]], None]
  names: set[str]

  def train_batches(self, policies: Sequence[Mapping[str, Any]], *, seed: int, batch_size: int,
                    first_step: int, last_step: int, rows_only: bool = False
                    ) -> Iterator[HostBatch]:
    """Batches for the steps first_step ... last_step - 1; one policy for each view.

    With `rows_only` the device pipeline leaves the images out, which are `resident`.
    """
    pipeline = self.config['pipeline']
    if pipeline == 'device' and not rows_only:
      pipeline = 'memory'
    return train_batches(
        pipeline, self.data, policies=policies, image_size=self.config['image_size'],
        resize=self.config['resize'], seed=seed, shards=shards(self.config),
        workers=self.config['workers'], unreadable=self.unreadable, batch_size=batch_size,
        first_step=first_step, last_step=last_step)

  def resident(self, devices: Sequence[jax.Device]) -> dict[str, jax.Array]:
    """What the device pipeline keeps on the devices for all batches; {} for the others."""
    if self.config['pipeline'] != 'device':
      return {}
    return prefetch.resident(self.data, devices)

  def origin(self) -> Files | None:
    """Of the training split, the files of training and held-out images, where it has them."""
    origin = self.data.origin
    return origin() if isinstance(self.data, Stream) and origin else origin

  def content(self) -> str:
    """A digest that changes with the images, their order and labels; all processes call it.

    Of images in memory of their pixels, of others of their files' names, sizes and times and of
    which records of these files they are. The same for any number of processes that see the
    same files.
    """
    if isinstance(self.data, Split):
      return _content_in_memory(self.data)
    stats = [self.data.identity]
    for path in map(str, self.data.files):
      stats.append(f'{path} {_size_and_time(path)}')
    own = hashlib.sha256('\n'.join(stats).encode()).hexdigest()
    # Those of hosts with files of their own can differ.
    return ' '.join(sorted({*processes.texts_of_all(own)}))

  def evaluation_batches(self, batch_size: int) -> Iterator[HostBatch]:
    """Every readable image once."""
    return evaluation_batches(
        self.data, image_size=self.config['image_size'], share=self.config['center_share'],
        order=self.config['center_order'], batch_size=batch_size, shards=shards(self.config),
        workers=self.config['workers'], unreadable=self.unreadable)

  def labels(self) -> np.ndarray:
    """Labels of all hosts' readable images, ordered by id; reads those on disk once.

    int32 [N], or [N, num_classes] where an image has several classes.
    """
    return self._gathered([np.column_stack([batch['sample_id'], batch['labels']])
                           for batch in self.evaluation_batches(1024)])

  def known(self) -> Known:
    """What is known without reading an image from disk; all processes call it."""
    if isinstance(self.data, Stream):
      return Known(self.data.num_examples, self.data.labels)
    return Known(self.data.num_examples, None if self.data.labels is None else self._gathered(
        [np.column_stack([self.data.sample_id, self.data.labels])]))

  def _gathered(self, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Labels in the order of the ids, of all hosts' rows: the id, then the labels."""
    width = self.data.num_classes if self.data.multi_label else 1
    together = parallel.gather_rows(np.concatenate([np.zeros((0, 1 + width), np.int32), *rows]))
    labels = together[np.argsort(together[:, 0], kind='stable'), 1:]
    return labels if self.data.multi_label else labels[:, 0]


def _content_in_memory(data: Split) -> str:
  """A digest of the images of all processes, in the order of their ids, and of their labels."""
  labels = np.zeros((len(data.images), 0), np.int32) if data.labels is None else data.labels
  own = [np.frombuffer(hashlib.sha256(image.tobytes() + label.tobytes()).digest(), np.int32)
         for image, label in zip(data.images, labels)]
  rows = parallel.gather_rows(np.column_stack([
      data.sample_id, np.concatenate([np.zeros((0, 8), np.int32), *(row[None] for row in own)])]))
  digest = hashlib.sha256(f'{data.images.shape[1:]} {labels.shape[1:]}'.encode())
  digest.update(rows[np.argsort(rows[:, 0], kind='stable')].tobytes())
  return digest.hexdigest()


def _size_and_time(path: str) -> str:
  """Of a file; 'none' where there is none, which those who read it will say."""
  if files.in_object_store(path):
    stat = epath.Path(path).stat()
    return f'{stat.length} {stat.mtime}'
  # That of epath knows whole seconds only, and fails where the owner of the file has no name.
  try:
    stat = os.stat(path)
  except FileNotFoundError:
    return 'none'
  return f'{stat.st_size} {stat.st_mtime_ns}'


def load(config: Mapping[str, Any], split: str, *, purpose: str, workdir: pathlib.Path,
         check: Callable[[Split | Stream], Any] | None = None) -> Loader:
  """Opens this host's part of a split.

  Args:
    config: a `data` section of plain dicts and tuples, as in `experiments/configs/default.py`.
    split: 'train', 'validation' or 'test'.
    purpose: why the split is read, for the workdir's splits_read.jsonl.
    workdir: folder of the run. Gets the rows of a balanced subset, their places in the
      training split, as subset_rows_NAME.txt, one in a line.
    check: called with what is listed, before images on disk are decoded into memory.

  Raises:
    InputError: what the user can mend in the config or the data.
  """
  data = splits.read(config['dataset'], split, purpose=purpose, access_log=_access_log(workdir),
                     shards=shards(config), options=config['options'])
  if data.subset and parallel.is_first_process():
    _write_subset(data.subset, workdir)
  if data.summary:
    parallel.say(f'{split}: {data.summary}')
  if check:
    check(data)
  names = set()
  if config['pipeline'] in ('memory', 'device') and isinstance(data, Stream):
    data = _in_memory(config, split)
  note = _note_unreadable(config['unreadable'], data, names, workdir)
  loader = Loader(data, config, note, names)
  say_left_out({split: lambda: loader})
  return loader


def say_left_out(loaders: Mapping[str, Callable[[], Loader]]) -> None:
  """Prints what files beside the images of each split are not used; at the start and the end."""
  for split, loader in loaders.items():
    if loader().data.left_out:
      parallel.say(f'{split}: {loader().data.left_out}')


def _in_memory(config: Mapping[str, Any], split: str) -> Split:
  """The owned images of a stream.

  A stream's shards may hold other ids than those in memory do, which are v modulo their
  number; so every host decodes the whole set and keeps its part.
  """
  # Imported here: sets that are arrays already need no TensorFlow.
  from byol_jax.input_pipeline import tf_pipeline

  everything = Shards()
  stream = splits.read(config['dataset'], split, purpose='', shards=everything,
                       options=config['options'])
  whole = tf_pipeline.in_memory(stream, shards=everything, workers=config['workers'])
  ids = shards(config).sample_ids(whole.num_examples)
  origin = stream.origin and stream.origin()
  return whole._replace(origin=origin, sample_id=ids, images=whole.images[ids],
                        labels=None if whole.labels is None else whole.labels[ids])


def _write_subset(subset: Subset, workdir: pathlib.Path) -> None:
  with files.atomic_write(workdir / SUBSET_ROWS.format(subset.name)) as file:
    file.writelines(f'{row}\n' for row in subset.rows)


def check_pretrained(train: Loader, pretrained: epath.Path) -> None:
  """Raises InputError where images that are held out now may be among those of a pretraining.

  All processes call it.

  Args:
    train: the training split of an evaluation on the pretraining's own data.
    pretrained: workdir of the pretraining.
  """
  if train.data.origin:
    processes.checked_by_first(lambda: changed_files.check_pretrained(
        pretrained, train.origin(), action=train.config['changed_files']))


def check_test_split(config: Mapping[str, Any]) -> None:
  """Before minutes are spent: whether there is a test split, which is not read for it."""
  module = plugins.load('datasets', config['dataset'])
  check = getattr(module, 'check_split', None)
  if check:
    check('test', **config['options'])


def roles(config: Mapping[str, Any]):
  """The `retrieval_lists.Roles` of the test split; None where the data set has no lists."""
  make = getattr(plugins.load('datasets', config['dataset']), 'roles', None)
  return make(**config['options']) if make else None


def _note_unreadable(action: str, data, names: set[str], workdir: pathlib.Path):
  def note(sample_ids):
    for sample_id in sample_ids:
      name = data.source(sample_id)
      if action == 'stop':
        raise DataError(
            f'{data.unreadable(sample_id)}. Replace or remove it (a run that has begun then needs '
            '--config.data.changed_files=accept), or give --config.data.unreadable=skip to go on '
            'without such images.')
      if name in names:
        continue
      names.add(name)
      # The file outlives the process and serves all splits of a workdir.
      known = unreadable_images(workdir)
      if name in known:
        continue
      with _unreadable_file(workdir).open('a') as file:
        file.write(json.dumps(name) + '\n')
      if len(known) < NAMED:
        print(f'left out: {data.unreadable(sample_id)}', flush=True)
      elif len(known) == NAMED:
        print(f'more images that cannot be read: see {_unreadable_file(workdir)}', flush=True)
  return note


def unreadable_images(workdir: pathlib.Path) -> list[str]:
  """The images that this host could not read, by all runs in a workdir."""
  path = _unreadable_file(workdir)
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _unreadable_file(workdir: pathlib.Path) -> pathlib.Path:
  if parallel.is_first_process():
    return workdir / UNREADABLE
  return workdir / f'{UNREADABLE}.{jax.process_index()}'


def _access_log(workdir: pathlib.Path):
  """Appends a record of each access to a split to the workdir's splits_read.jsonl."""
  def note(record):
    if parallel.is_first_process():
      with (workdir / ACCESS_LOG).open('a') as file:
        file.write(json.dumps(record) + '\n')
  return note


def reads_of(workdir: pathlib.Path, split: str) -> int:
  """How often a split was read, by all runs in a workdir.

  Counted in the text: the next record follows one that was cut off on the same line.
  """
  text = (workdir / ACCESS_LOG).read_bytes().decode(errors='replace')
  return text.count(json.dumps(dict(split=split))[1:-1])


def shards(config: Mapping[str, Any]) -> Shards:
  """The virtual shards of a `data` section that this host owns."""
  return one_host(jax.process_index(), jax.process_count(), config['virtual_shards'])
