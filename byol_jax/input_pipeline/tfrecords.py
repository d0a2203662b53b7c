"""Reads all or selected records of TFRecord files, in virtual shards.

A virtual shard is a contiguous run of the selected records. In training, each pass over a
shard takes the files in an order drawn from the seed, reads several at once and shuffles
in a buffer; only the files with records of the shard are opened. A record that is not selected
is read from disk if other records of its file are, but it is not parsed or decoded.
"""

from collections.abc import Callable, Sequence
import hashlib
import json
import os
from typing import Any, NamedTuple

import numpy as np

from byol_jax.input_pipeline import local_copies, streams
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.records import DataError, Selected, Shards
from byol_jax.input_pipeline.streams import Stream

# Number of a virtual shard's files that are read at the same time in training, so that the
# buffer has records of all of them.
FILES_AT_ONCE = 4
# Number of files read at the same time for one value of each record.
SCANNED_AT_ONCE = 16


class Slice(NamedTuple):
  """A run of records in one file.

  file: path of the file.
  skip: number of records in the file before the run.
  take: number of records in the run.
  first_row: row of the first record in the run.
  """

  file: str
  skip: int
  take: int
  first_row: int


class Chosen(NamedTuple):
  """Some of the records of several files.

  slices: all records, with ascending rows.
  rows: int64 [N], the chosen rows, ascending. A record's place in it is its sample id.
  """

  slices: Sequence[Slice]
  rows: np.ndarray


def joined(*parts: Sequence[Slice]) -> list[Slice]:
  """The records of several lists, one after the other, with rows numbered from 0."""
  result, first_row = [], 0
  for s in (s for part in parts for s in part):
    result.append(s._replace(first_row=first_row))
    first_row += s.take
  return result


def concatenate(parts: Sequence[Chosen]) -> Chosen:
  """The chosen records of several lists, one after the other."""
  if len(parts) == 1:
    return parts[0]
  starts = np.cumsum([0, *(count(part.slices) for part in parts)])
  return Chosen(joined(*(part.slices for part in parts)),
                np.concatenate([part.rows + start for part, start in zip(parts, starts)]))


def count(slices: Sequence[Slice]) -> int:
  """The number of records."""
  return sum(s.take for s in slices)


def restrict(slices: Sequence[Slice], rows: np.ndarray) -> list[Slice]:
  """Restricts each slice to the records from the first to the last of its `rows`."""
  result = []
  for s in slices:
    if not len(rows) or s.first_row + s.take <= rows[0] or s.first_row > rows[-1]:
      continue
    start, stop = np.searchsorted(rows, (s.first_row, s.first_row + s.take))
    if start < stop:
      low, high = int(rows[start]), int(rows[stop - 1]) + 1
      result.append(Slice(s.file, s.skip + low - s.first_row, high - low, low))
  return result


def check_files(name: str, slices: Sequence[Slice]) -> None:
  """Raises DataError if a file is missing; `name` is the name of the data set."""
  import tensorflow as tf

  files = sorted({s.file for s in slices})
  present = {f'{folder}/{file.rstrip("/")}' for folder in set(map(os.path.dirname, files))
             for file in tf.io.gfile.listdir(folder)}
  missing = [file for file in files if file not in present]
  if missing:
    raise DataError(f'{len(missing)} of the {len(files)} files of this split of {name} are '
                    f'missing, the first {missing[0]}; copy them, or prepare the set again.')


def read_feature(slices: Sequence[Slice], parse: Callable[[Any], Any]) -> np.ndarray:
  """Reads one value of every record, in the order of the rows; no image is decoded.

  Args:
    slices: the records to read.
    parse: serialized record -> a scalar tensor.

  Raises:
    DataError: a file cannot be read.
  """
  import tensorflow as tf

  files, skips, takes, _ = zip(*slices)
  table = tf.constant(files), tf.constant(skips, tf.int64), tf.constant(takes, tf.int64)
  # Blocks as long as the longest slice keep the order. Records are parsed within each file, so
  # that the buffers have only values.
  values = tf.data.Dataset.from_tensor_slices(table).interleave(
      lambda *row: _records(*row).map(parse), cycle_length=SCANNED_AT_ONCE,
      block_length=max(takes), num_parallel_calls=SCANNED_AT_ONCE, deterministic=True)
  try:
    return np.concatenate(list(values.batch(1024).prefetch(2).as_numpy_iterator()))
  except tf.errors.OpError as error:
    reason = error.message.splitlines()[0].split('}} ')[-1].split(' [Op:')[0].rstrip('.')
    raise DataError(f'Reading the labels failed ({type(error).__name__}): {reason}. '
                    f'{damaged_file(slices)}'.strip()) from error


class RecordFiles(NamedTuple):
  """A store of records of TFRecord files.

  chosen: the records.
  name: name of their data set, for messages.
  parse: record, with its bytes under `serialized` -> `encoded` and `labels`, as in `Stream.read`.
  shuffle_buffer: number of encoded records that each virtual shard buffers for shuffling.
  cache_dir: folder on each host into which it copies the files of its shards; None for no copy.
  """

  chosen: Chosen
  name: str
  parse: Callable[..., Any]
  shuffle_buffer: int
  cache_dir: str | None

  @property
  def count(self) -> int:
    """The number of chosen records."""
    return len(self.chosen.rows)

  def take(self, rows: np.ndarray) -> 'RecordFiles':
    """As in `records.Store`."""
    return self._replace(chosen=self.chosen._replace(rows=self.chosen.rows[rows]))

  def followed_by(self, other: 'RecordFiles') -> 'RecordFiles':
    """As in `records.Store`."""
    return self._replace(chosen=concatenate([self.chosen, other.chosen]))

  def check(self) -> None:
    """As in `records.Store`."""
    check_files(self.name, restrict(*self.chosen))

  def open(self, selected: Selected, shards: Shards) -> Stream:
    """As in `records.Store`."""
    self.check()
    return _stream(self, shards)._replace(
        multi_label=selected.multi_label, labelled=selected.num_classes > 0, **selected.about())

  def in_memory(self, selected: Selected, shards: Shards, workers: int) -> Split:
    """As in `records.Store`."""
    return streams.decoded(self, selected, shards, workers)


def _stream(store: RecordFiles, shards: Shards) -> Stream:
  """The stream of the records; each virtual shard is a contiguous run of them."""
  slices, rows = store.chosen
  bounds = [len(rows) * v // shards.total for v in range(shards.total + 1)]
  per_shard = [restrict(slices, rows[slice(*bounds[v:v + 2])]) if v in shards.owned else []
               for v in range(shards.total)]
  table = [s for part in per_shard for s in part]
  if store.cache_dir:
    local = local_copies.copies(sorted({s.file for s in table}), store.cache_dir)
    table = [s._replace(file=local[s.file]) for s in table]

  def source(sample_id):
    row = rows[sample_id]
    s = next(s for s in slices if s.first_row <= row < s.first_row + s.take)
    return f'record {s.skip + row - s.first_row} of {s.file}'

  records = _sharded(table, np.cumsum([0, *map(len, per_shard)]), _numbered(rows),
                     store.shuffle_buffer)
  return Stream(records, store.parse, np.diff(bounds), source, lambda: damaged_file(table),
                len(rows), num_classes=0, files=sorted({s.file for s in slices}),
                identity=_identity(store.chosen))


def _identity(chosen: Chosen) -> str:
  """A digest of the slices and of the rows chosen from them."""
  digest = hashlib.sha256(json.dumps(chosen.slices).encode())
  digest.update(np.asarray(chosen.rows, np.int64).tobytes())
  return digest.hexdigest()


def _sharded(table: Sequence[Slice], first: np.ndarray, numbered, shuffle_buffer: int):
  """`Stream.records`; `first` has the place in the table where each shard begins, and the end."""
  import tensorflow as tf

  def one_slice(row):
    column = lambda name, kind=tf.int64: tf.gather(
        tf.constant([getattr(s, name) for s in table], kind), row)
    part = _records(column('file', tf.string), column('skip'), column('take'))
    return numbered(part.enumerate(column('first_row')))

  def records(shard, seed):
    rows = tf.range(*(tf.gather(tf.constant(first), shard + i) for i in (0, 1)))
    if seed is None:
      return tf.data.Dataset.from_tensor_slices(rows).flat_map(one_slice)
    rows = tf.random.experimental.stateless_shuffle(rows, seed)
    mixed = tf.data.Dataset.from_tensor_slices(rows).interleave(
        one_slice, cycle_length=FILES_AT_ONCE)
    buffer_seed = tf.random.stateless_uniform([], seed, None, None, tf.int64)
    return mixed.shuffle(shuffle_buffer, seed=buffer_seed, reshuffle_each_iteration=False)

  return records


def _numbered(rows: np.ndarray):
  """Dataset of (row, record) -> the chosen records with their sample ids."""
  import tensorflow as tf

  start = int(rows[0])
  named = lambda number, record: dict(sample_id=tf.cast(number, tf.int32), serialized=record)
  if rows[-1] - start + 1 == len(rows):
    return lambda records: records.map(lambda row, record: named(row - start, record))
  numbers = np.full(rows[-1] - start + 1, -1, np.int32)
  numbers[rows - start] = np.arange(len(rows))
  numbers = tf.constant(numbers)
  return lambda records: records.map(
      lambda row, record: named(tf.gather(numbers, row - start), record)
  ).filter(lambda record: record['sample_id'] >= 0)


def _records(file, skip, take):
  """The serialized records of a slice, whose values are tensors."""
  import tensorflow as tf

  part = tf.data.TFRecordDataset(file, buffer_size=1 << 20).skip(skip).take(take)
  # A file that was cut off between two records would look like a complete, shorter file.
  return part.apply(tf.data.experimental.assert_cardinality(take))


def damaged_file(slices: Sequence[Slice]) -> str:
  """Reads the files one after the other and names the first that fails or is too short."""
  import tensorflow as tf

  for s in slices:
    try:
      found = sum(1 for _ in tf.data.TFRecordDataset(s.file))
    except tf.errors.OpError as error:
      return f'{s.file}: {error.message.splitlines()[0].split("}} ")[-1]}'
    if found < s.skip + s.take:
      return f'{s.file} has {found} records but should have at least {s.skip + s.take}'
  return ''
