"""Images on disk that tf.data reads when they are needed: the batches of a split.

This file does not need TensorFlow; the pipeline itself is in `tf_pipeline`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
import os
from typing import Any, NamedTuple

from etils import epath
import numpy as np

from byol_jax import files
from byol_jax.augment import views
from byol_jax.distributed import processes
from byol_jax.input_pipeline.batches import HostBatch, Unreadable, check_count
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.records import (
  DataError,
  Files,
  Known,
  Selected,
  Shards,
  Subset,
  check_labels,
  out_of_range,
)


class Stream(NamedTuple):
  """Records on disk that are read when they are needed.

  records: (shard, seed) -> tf.data.Dataset of the records of one virtual shard,
    dicts of tensors with `sample_id`, int32. `shard` is a scalar tensor. `seed`, an
    integer tensor [2], determines their order; None gives the order of ids.
  read: record -> dict of `encoded`, the file's bytes, and `labels`, int32 [] or
    [num_classes] as in `Split`, if there are any. Not called for the records that a
    resumed run skips.
  shard_sizes: int64 [shards.total], number of records in each virtual shard.
  source: sample_id -> where the record is stored, for messages.
  diagnose: () -> which file is damaged, after reading has failed; '' if none is found.
  num_examples: number of records in the split over all hosts.
  num_classes: number of classes in the data set; 0 for unlabelled data.
  multi_label: whether an image has several classes.
  subset: as in `records.Selected`.
  files: the files with the records.
  identity: a digest of which records of these files are in the stream, of their order, and of
    labels that are not in the files.
  origin: as in `records.Selected`.
  class_names: as in `records.Selected`.
  summary: as in `records.Selected`.
  left_out: as in `records.Selected`.
  decode: encoded, a scalar string -> uint8 [H, W, 3]; None for `preprocess.decode`.
  reason: sample_id -> why its image cannot be read; None if this cannot be determined.
  labels: labels of all records in the order of their ids, if known without reading the records.
  labelled: whether `read` gives labels.
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
  labelled: bool = True

  # The form of the images in batches for evaluation.
  evaluation_form = views.READY

  def unreadable(self, sample_id: int) -> str:
    """Part of a sentence: which image cannot be read, and why, if this is known."""
    because = self.reason(sample_id) if self.reason else ''
    return f'{self.source(sample_id)} cannot be read as an image' + (because and f': {because}')

  def train_batches(self, pipeline: str, *, policies: Sequence[Mapping[str, Any]],
                    image_size: int, resize: str, seed: int, shards: Shards, workers: int,
                    unreadable: Unreadable, first_step: int, last_step: int, batch_size: int
                    ) -> Iterator[HostBatch]:
    """As in `batches.Batches`; tf.data makes the crops."""
    del pipeline
    check_count(self.num_examples, shards.total)
    from byol_jax.input_pipeline import tf_pipeline

    crop = tf_pipeline.random_crops(seed, policies, image_size, resize)
    records = lambda done, careful: tf_pipeline.train_records(
        self, crop, seed=seed, shards=shards, workers=workers, careful=careful,
        first_step=first_step + done, last_step=last_step, batch_size=batch_size)
    per_shard = batch_size // shards.total
    return (_filled(batch, per_shard, unreadable)
            for batch in _checked(tf_pipeline.host_batches(records, self), self))

  def evaluation_batches(self, *, image_size: int, share: float, order: str, batch_size: int,
                         shards: Shards, workers: int, unreadable: Unreadable
                         ) -> Iterator[HostBatch]:
    """As in `batches.Batches`; tf.data makes the views."""
    from byol_jax.input_pipeline import tf_pipeline

    records = lambda done, careful: tf_pipeline.evaluation_records(
        self, tf_pipeline.center_crops(image_size, share, order), batch_size=batch_size,
        shards=shards, workers=workers, careful=careful).skip(done)
    for batch in _checked(tf_pipeline.host_batches(records, self), self):
      readable = batch.pop('readable')
      if not readable.all():
        unreadable(batch['sample_id'][~readable].tolist())
        batch = {name: array[readable] for name, array in batch.items()}
      if len(batch['sample_id']):
        yield batch

  def known(self) -> Known:
    """As in `batches.Batches`."""
    return Known(self.num_examples, self.labels)

  def fingerprint(self) -> str:
    """A digest of the files' names, sizes and times, and of the records selected from them."""
    stats = [self.identity, *(f'{path} {_size_and_time(path)}' for path in map(str, self.files))]
    own = hashlib.sha256('\n'.join(stats).encode()).hexdigest()
    # Hosts with their own copies of the files can have different digests.
    return ' '.join(sorted({*processes.allgather_strings(own)}))


def decoded(store, selected: Selected, shards: Shards, workers: int) -> Split:
  """`records.Store.in_memory` for a store that opens streams.

  A stream's shards may have other ids than shards in memory, where shard v has the ids that are v
  modulo the number of shards. So every host decodes the whole split and keeps its part.
  """
  from byol_jax.input_pipeline import tf_pipeline

  everything = Shards()
  whole = tf_pipeline.in_memory(store.open(selected, everything), shards=everything,
                                workers=workers)
  ids = shards.sample_ids(whole.num_examples)
  return whole._replace(sample_id=ids, images=whole.images[ids],
                        labels=None if whole.labels is None else whole.labels[ids],
                        **selected.about())


def _size_and_time(path: str) -> str:
  """The size and time of a file; 'none' for a missing file, which its readers will report."""
  if files.in_object_store(path):
    stat = epath.Path(path).stat()
    return f'{stat.length} {stat.mtime}'
  # epath's stat has only whole seconds, and fails if the owner of the file has no name.
  try:
    stat = os.stat(path)
  except FileNotFoundError:
    return 'none'
  return f'{stat.st_size} {stat.st_mtime_ns}'


def _checked(batches: Iterator[HostBatch], stream: Stream) -> Iterator[HostBatch]:
  """Yields the batches after checking their labels."""
  for batch in batches:
    if stream.labelled:
      labels = batch['labels'][batch['readable']]
      ids = batch['sample_id'][batch['readable']]
      wrong = ids[out_of_range(labels, stream.num_classes)]
      if len(wrong):
        check_labels(stream.source(int(wrong[0])), labels, stream.num_classes)
    yield batch


def _filled(batch: HostBatch, per_shard: int, unreadable: Unreadable) -> HostBatch:
  """Replaces unreadable images of a batch by copies of readable images.

  The replacement is the next readable image of the same virtual shard in the batch, which does
  not depend on the number of hosts. If there is none, it is the next in this host's batch.
  """
  readable = batch.pop('readable')
  if readable.all():
    return batch
  bad = np.flatnonzero(~readable)
  unreadable(batch['sample_id'][bad].tolist())
  if not readable.any():
    raise DataError(f'None of the {len(readable)} images of a batch can be read; the first is '
                    f'sample {batch["sample_id"][0]}.')
  source = np.arange(len(readable))
  for row in bad:
    start = row // per_shard * per_shard
    part = start + (row - start + np.arange(per_shard)) % per_shard
    whole = (row + np.arange(len(readable))) % len(readable)
    source[row] = next(r for r in (*part, *whole) if readable[r])
  # The place keeps its own id and epoch, and therefore its own augmentations.
  return {name: array if name in ('sample_id', 'epoch') else array[source]
          for name, array in batch.items()}
