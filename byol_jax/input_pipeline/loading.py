"""Turns a config's `data` section into batches: the split, its pipeline, its unreadable images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import json
import pathlib
from typing import Any, NamedTuple

from etils import epath
import jax
import numpy as np

from byol_jax import files, plugins
from byol_jax.augment import views
from byol_jax.distributed import parallel, processes
from byol_jax.input_pipeline import changed_files, prefetch, splits
from byol_jax.input_pipeline.batches import Batches, HostBatch, gather_labels
from byol_jax.input_pipeline.records import (
  DataError,
  Files,
  Known,
  Selected,
  Shards,
  Subset,
  one_host,
)

ACCESS_LOG = 'splits_read.jsonl'
UNREADABLE = 'unreadable_images.txt'
SUBSET_ROWS = 'subset_rows_{}.txt'
# Number of unreadable images named on the screen; the file names all of them.
NAMED = 20


class Loader(NamedTuple):
  """A split of a config's `data` section, as batches of this host.

  data: the split, a `memory.Split` or a `streams.Stream`.
  config: the `data` section as plain dicts and tuples.
  unreadable: function that the input pipeline calls with the ids of unreadable images.
  names: names of the unreadable images found so far.
  """

  data: Batches
  config: Mapping[str, Any]
  unreadable: Callable[[Sequence[int]], None]
  names: set[str]

  def train_batches(self, policies: Sequence[Mapping[str, Any]], *, seed: int, batch_size: int,
                    first_step: int, last_step: int, rows_only: bool = False
                    ) -> Iterator[HostBatch]:
    """Batches for the steps first_step ... last_step - 1; one policy for each view.

    With `rows_only` the device pipeline leaves out the images, because they are `resident`.
    """
    pipeline = self.config['pipeline']
    if pipeline == 'device' and not rows_only:
      pipeline = 'memory'
    return self.data.train_batches(
        pipeline, policies=policies, image_size=self.config['image_size'],
        resize=self.config['resize'], seed=seed, shards=shards(self.config),
        workers=self.config['workers'], unreadable=self.unreadable, batch_size=batch_size,
        first_step=first_step, last_step=last_step)

  def single_views(self, policy: Mapping[str, Any], seed: int):
    """Returns a function: batch of `train_batches` with images -> a random view of each image.

    The views are cropped and flipped.

    Args:
      policy: as in `augment.views.crop_and_flip`.
      seed: the run's seed.
    """
    pipeline = self.config['pipeline']
    return functools.partial(
        views.crop_and_flip, form=views.FORMS['memory' if pipeline == 'device' else pipeline],
        seed=seed, policy=policy, image_size=self.config['image_size'])

  def resident(self, devices: Sequence[jax.Device]) -> dict[str, jax.Array]:
    """What the device pipeline keeps on the devices for all batches; {} for other pipelines."""
    if self.config['pipeline'] != 'device':
      return {}
    return prefetch.resident(self.data, devices)

  def origin(self) -> Files | None:
    """The files of training and held-out images, if this is the training split and has files."""
    return self.data.origin and self.data.origin()

  def fingerprint(self) -> str:
    """A digest that changes with the images, their order and labels; all processes must call it."""
    return self.data.fingerprint()

  def evaluation_batches(self, batch_size: int) -> Iterator[HostBatch]:
    """Batches with every readable image once."""
    return self.data.evaluation_batches(
        image_size=self.config['image_size'], share=self.config['center_share'],
        order=self.config['center_order'], batch_size=batch_size, shards=shards(self.config),
        workers=self.config['workers'], unreadable=self.unreadable)

  def labels(self) -> np.ndarray:
    """Labels of all hosts' readable images, ordered by id; labels on disk are read once.

    The shape is int32 [N], or [N, num_classes] if an image can have several classes.
    """
    return gather_labels(self.evaluation_batches(1024), self.data)

  def known(self) -> Known:
    """What is known without reading an image from disk; all processes must call it."""
    return self.data.known()


def load(config: Mapping[str, Any], split: str, *, purpose: str, workdir: pathlib.Path,
         check: Callable[[Selected], Any] | None = None) -> Loader:
  """Opens this host's part of a split.

  Args:
    config: a `data` section of plain dicts and tuples, as in `experiments/configs/default.py`.
    split: 'train', 'validation', 'test' or 'train+validation'.
    purpose: why the split is read, for the workdir's splits_read.jsonl.
    workdir: workdir of the run. The rows of a balanced subset, which are places in the training
      split, are written to its file subset_rows_NAME.txt, one per line.
    check: called with the selected images, before images on disk are decoded into memory.

  Raises:
    InputError: a problem in the config or the data that the user can fix.
  """
  def selected(found: Selected) -> None:
    if found.subset and parallel.is_first_process():
      _write_subset(found.subset, workdir)
    if found.summary:
      parallel.print_once(f'{split}: {found.summary}')
    if check:
      check(found)

  data = splits.read(config['dataset'], split, purpose=purpose, access_log=_access_log(workdir),
                     shards=shards(config), options=config['options'], check=selected,
                     in_memory=config['pipeline'] != 'tf_data', workers=config['workers'])
  names = set()
  note = _note_unreadable(config['unreadable'], data, names, workdir)
  loader = Loader(data, config, note, names)
  say_left_out({split: lambda: loader})
  return loader


def say_left_out(loaders: Mapping[str, Callable[[], Loader]]) -> None:
  """Prints which files are not used as images of each split; called at the start and the end."""
  for split, loader in loaders.items():
    if loader().data.left_out:
      parallel.print_once(f'{split}: {loader().data.left_out}')


def _write_subset(subset: Subset, workdir: pathlib.Path) -> None:
  with files.atomic_write(workdir / SUBSET_ROWS.format(subset.name)) as file:
    file.writelines(f'{row}\n' for row in subset.rows)


def check_pretrained(train: Loader, pretrained: epath.Path) -> None:
  """Raises InputError if images that are held out now may have been used in the pretraining.

  All processes must call it.

  Args:
    train: the training split of an evaluation on the pretraining's own data.
    pretrained: workdir of the pretraining.
  """
  if train.data.origin:
    processes.checked_by_first(lambda: changed_files.check_pretrained(
        pretrained, train.origin(), action=train.config['changed_files']))


def check_test_split(config: Mapping[str, Any]) -> None:
  """Lists the test split early, before minutes are spent; no image is decoded."""
  splits.select(config['dataset'], 'test', config['options']).store.check()


def roles(config: Mapping[str, Any]):
  """The `retrieval_lists.Roles` of the test split; None if the data set has no lists."""
  make = getattr(plugins.load('datasets', config['dataset']), 'roles', None)
  own, _ = splits.divide_options(config['dataset'], config['options'])
  return make(**own) if make else None


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
      # The file is kept after the process ends and is shared by all splits of a workdir.
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
  """The images that this host could not read, in all runs in a workdir."""
  path = _unreadable_file(workdir)
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _unreadable_file(workdir: pathlib.Path) -> pathlib.Path:
  if parallel.is_first_process():
    return workdir / UNREADABLE
  return workdir / f'{UNREADABLE}.{jax.process_index()}'


def _access_log(workdir: pathlib.Path):
  """Returns a function that appends a record of an access to the workdir's splits_read.jsonl."""
  def note(record):
    if parallel.is_first_process():
      with (workdir / ACCESS_LOG).open('a') as file:
        file.write(json.dumps(record) + '\n')
  return note


def reads_of(workdir: pathlib.Path, split: str) -> int:
  """How often all runs in a workdir have read a split.

  The records are counted in the text and not by parsing lines, because a record that was cut off
  shares its line with the next one.
  """
  text = (workdir / ACCESS_LOG).read_bytes().decode(errors='replace')
  return text.count(json.dumps(dict(split=split))[1:-1])


def shards(config: Mapping[str, Any]) -> Shards:
  """The virtual shards of a `data` section that this host owns."""
  return one_host(jax.process_index(), jax.process_count(), config['virtual_shards'])
