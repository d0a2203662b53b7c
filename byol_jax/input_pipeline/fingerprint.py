"""A record of the files that a run's data come from, kept in its workdir, and their changes.

The record has the name, the size and the time of the last change of each file, and checksums of
up to DRAWN files, drawn with the run's seed. Under the same path, a file is unchanged if its size
and time are, or its known checksum. Under another path, names, sizes and the contents of the drawn
files are compared. For packed files and files in object stores, only names and sizes are compared.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import hashlib
import itertools
import json
import os
from typing import Any, NamedTuple

from etils import epath
import numpy as np

from byol_jax import files
from byol_jax.errors import InputError
from byol_jax.files import atomic_write
from byol_jax.input_pipeline.order import permutation
from byol_jax.input_pipeline.records import Files

RECORD = 'data_files.npz'
FORMAT = 1
# Number of files whose contents are compared.
DRAWN = 64
# Of a longer file, only this many bytes are read, in blocks spread evenly over it.
MOST_BYTES, BLOCK = 2 ** 30, 2 ** 20
# Largest number of files in an object store whose sizes are requested, one request each.
MOST_ASKED = 4096
THREADS, AT_ONCE = 16, 64
UNKNOWN, MISSING = -2, -1
# Number of names that a message gives for each kind of change.
NAMED = 3


class Record(NamedTuple):
  """The state of files at some time.

  names: N names, sorted.
  paths: N paths, without symbolic links in their folders.
  sizes: int64 [N], bytes; MISSING if there is no file, UNKNOWN if the size was not requested.
  times: int64 [N], time of the last change in ns since 1970; UNKNOWN if it is not compared.
  order: as in `Files`.
  checksums: {name: sha256} of the drawn files; '' for a file that cannot be read.
  """

  names: list[str]
  paths: list[str]
  sizes: np.ndarray
  times: np.ndarray
  order: str
  checksums: dict[str, str]


class Changes(NamedTuple):
  """Names of the files that have changed.

  changed: names of files whose contents have changed, or may have changed.
  retimed: names in `changed` for which only the time is known to differ.
  reordered: whether the files are listed in another order, or with other labels.
  """

  added: list[str]
  gone: list[str]
  changed: list[str]
  retimed: list[str]
  reordered: bool

  def __str__(self) -> str:
    parts = [f'{len(names)} {what} ({_some(names)})' for what, names in (
        ('added', self.added), ('gone', self.gone), ('changed', self.changed)) if names]
    if self.retimed:
      parts[-1] += (f', {len(self.retimed)} of which differ only in their modification '
                    'times, as after touch or a copy that does not keep them')
    if self.reordered:
      parts.append('a different order or different labels in the list')
    return ', '.join(parts)


def observe(files: Files) -> Record:
  """Records the current state of the files, without checksums."""
  rows = sorted(range(len(files.names)), key=files.names.__getitem__)
  names, paths = ([column[row] for row in rows] for column in (files.names, files.paths))
  sizes, times = _stats(paths)
  if files.packed:
    times = np.full_like(times, UNKNOWN)
  return Record(names, _real(paths), sizes, times, files.order, {})


def with_checksums(record: Record, seed: int, packed: bool) -> Record:
  """Adds checksums of files drawn with the seed to the record; packed and remote files get none."""
  rows = permutation(len(record.names), seed)[:0 if packed else DRAWN].tolist()
  return record._replace(checksums=_checksums(
      {record.names[row]: record.paths[row] for row in rows}))


def compare(saved: Record, now: Record) -> Changes:
  """Finds what has changed; reads the drawn files if sizes and times do not decide."""
  before = {name: row for row, name in enumerate(saved.names)}
  after = {name: row for row, name in enumerate(now.names)}
  both = [name for name in saved.names if name in after]
  old = np.array([before[name] for name in both], np.int64)
  new = np.array([after[name] for name in both], np.int64)
  counts = lambda a, b: (a != UNKNOWN) & (b != UNKNOWN) & (a != b)
  resized = counts(saved.sizes[old], now.sizes[new])
  here = np.array([saved.paths[i] == now.paths[j] for i, j in zip(old.tolist(), new.tolist())],
                  bool)
  retimed = ~resized & here & counts(saved.times[old], now.times[new])
  doubtful = {both[i]: now.paths[new[i]] for i in np.flatnonzero(~resized & (retimed | ~here))
              if both[i] in saved.checksums}
  found = _checksums(doubtful)
  other = {name for name, checksum in found.items() if checksum != saved.checksums[name]}
  retimed = [both[i] for i in np.flatnonzero(retimed) if both[i] not in found]
  changed = {*retimed, *other, *(both[i] for i in np.flatnonzero(resized))}
  called = lambda record, rows, names: [_called(name, record.paths[rows[name]]) for name in names]
  return Changes(called(now, after, [name for name in now.names if name not in before]),
                 called(saved, before, [name for name in saved.names if name not in after]),
                 called(now, after, sorted(changed)), retimed, saved.order != now.order)


def _called(name: str, path: str) -> str:
  """A file's name, with its path if the name is only that of an option, such as 'images'."""
  return name if path.endswith(name.rpartition('/')[2]) else f'{name}: {path}'


def write(workdir: epath.Path, record: Record) -> None:
  """Writes the record of a workdir atomically."""
  texts = dict(names=record.names, paths=record.paths)
  about = dict(format=FORMAT, order=record.order, checksums=record.checksums)
  with atomic_write(workdir / RECORD, 'wb') as file:
    np.savez_compressed(file, sizes=record.sizes, times=record.times, about=_packed(
        [json.dumps(about)]), **{name: _packed(column) for name, column in texts.items()})


def read(workdir: epath.Path) -> Record | None:
  """Reads the record of a workdir; None if there is none.

  Raises:
    InputError: the record is damaged.
  """
  path = workdir / RECORD
  if not path.exists():
    return None
  try:
    with path.open('rb') as file, np.load(file) as arrays:
      names, paths, (text,) = (_unpacked(arrays[name]) for name in ('names', 'paths', 'about'))
      about, sizes, times = json.loads(text), arrays['sizes'], arrays['times']
    if about['format'] != FORMAT or not len(names) == len(paths) == len(sizes) == len(times):
      raise ValueError('it has another format')
    return Record(names, paths, sizes, times, about['order'], about['checksums'])
  # A damaged file raises errors of many kinds, including those of zipfile and zlib.
  except Exception as error:
    raise InputError(
        f'{path}, the record of the data files at the start of the run, is damaged ({error}), so '
        'changes to the data cannot be detected. Restore it, or give '
        '--config.data.changed_files=accept if you know that nothing has changed.') from error


def _packed(texts: Sequence[str]) -> np.ndarray:
  """Texts joined as bytes; NUL is the only character that no path contains."""
  return np.frombuffer('\0'.join(texts).encode(errors='surrogateescape'), np.uint8)


def _unpacked(array: np.ndarray) -> list[str]:
  return array.tobytes().decode(errors='surrogateescape').split('\0')


def _some(names: Sequence[str]) -> str:
  shown = [name if name.isprintable() else repr(name) for name in names[:NAMED]]
  return ', '.join(shown + ['...'] * (len(names) > NAMED))


def _real(paths: Iterable[str]) -> list[str]:
  """Paths without symbolic links in their folders; each folder is resolved only once."""
  folders: dict[str, str] = {}
  result = []
  for path in paths:
    folder, _, name = path.rpartition('/')
    if folder not in folders:
      folders[folder] = folder if files.in_object_store(path) else os.path.realpath(
          folder or ('/' if path.startswith('/') else '.'))
    result.append(f'{folders[folder].rstrip("/")}/{name}')
  return result


def _stats(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """Sizes and times of the last change, int64 [N] each, as in `Record`."""
  asked = np.zeros(len(paths), bool)
  asked[permutation(len(paths), 0)[:MOST_ASKED]] = True
  with ThreadPoolExecutor(THREADS) as pool:
    # Network disks answer many requests at once; for speed, each thread takes many files.
    blocks = pool.map(
        lambda start: list(map(_stat, paths[start:start + AT_ONCE], asked[start:start + AT_ONCE])),
        range(0, len(paths), AT_ONCE))
    found = np.array(list(itertools.chain.from_iterable(blocks)), np.int64)
  return found[:, 0], found[:, 1]


def _stat(path: str, ask: bool) -> tuple[int, int]:
  if files.in_object_store(path):
    return epath.Path(path).stat().length if ask else UNKNOWN, UNKNOWN
  try:
    found = os.stat(path)
  except FileNotFoundError:
    return MISSING, UNKNOWN
  return found.st_size, found.st_mtime_ns


def _checksums(paths: Mapping[str, str]) -> dict[str, str]:
  """{name: sha256} of local files."""
  local = {name: path for name, path in paths.items() if not files.in_object_store(path)}
  with ThreadPoolExecutor(THREADS) as pool:
    return dict(zip(local, pool.map(_checksum, local.values())))


def _checksum(path: str) -> str:
  digest = hashlib.sha256()
  try:
    with open(path, 'rb') as file:
      size = os.fstat(file.fileno()).st_size
      starts: Any = range(0, size, BLOCK)
      if size > MOST_BYTES:
        starts = np.linspace(0, size - BLOCK, MOST_BYTES // BLOCK, dtype=np.int64).tolist()
      for start in starts:
        file.seek(start)
        digest.update(file.read(BLOCK))
  # The code that reads the file for its image reports the error.
  except OSError:
    return ''
  return digest.hexdigest()
