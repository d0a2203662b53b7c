"""Converts the contents of a pickle to NumPy arrays, within limits on memory and time."""

import codecs
import math
from typing import Any, BinaryIO

import numpy as np

from byol_jax.convert.stand_ins import Array, Blob, Immutable, Record, Refused, Unknown

MAX_DEPTH = 40
# Things met on a walk; shared parts count each time.
MAX_NODES = 200_000
# Total characters of all paths of arrays.
MAX_CHARACTERS = 1 << 24
CHUNK = 1 << 22


def num_bytes(array: Array) -> int:
  """The size of an array's numbers in bytes."""
  return math.prod(array.shape) * np.dtype(array.dtype).itemsize


def arrays_of(value: Any, size: int) -> dict[str, Array]:
  """{path: array} of everything below a value; slashes join the parts of a path.

  Args:
    value: from the machine in `machine`; things unknown to a scan are skipped.
    size: size of the file in bytes; the arrays together cannot be larger.

  Raises:
    Refused: for the same reasons as in `materialize`.
  """
  found, walk, characters = {}, _Walk(size), 0

  def visit(value, names):
    nonlocal characters
    value = walk.step(value, len(names))
    if isinstance(value, Array) and not value.unknown:
      # Join names only for arrays: a file can repeat a long name for every part of it.
      characters += sum(map(len, names))
      if characters > MAX_CHARACTERS:
        raise Refused(f'arrays with names of more than {MAX_CHARACTERS} characters')
      found['/'.join(names)] = value
    for name, inner in _parts(value):
      visit(inner, (*names, name))

  visit(value, ())
  return found


def check(value: Any, size: int) -> None:
  """Raises Refused like `materialize`, but reads nothing."""
  walk = _Walk(size)

  def visit(value, depth):
    value = walk.step(value, depth)
    for _, inner in _parts(value):
      visit(inner, depth + 1)

  visit(value, 0)


def _parts(value: Any):
  if isinstance(value, dict):
    return value.items()
  if isinstance(value, Record):
    return zip(value.fields, value.values)
  return ((str(i), inner) for i, inner in enumerate(value)) if type(value) in (list, tuple) else ()


class _Walk:
  """Limits a walk: a few instructions can describe a tree with 2 ** 100 leaves, or a cycle."""

  def __init__(self, size: int):
    # Small arrays can share their bytes.
    self.nodes, self.left, self.met = 0, size + (1 << 20), {}

  def step(self, value: Any, depth: int) -> Any:
    """Counts and checks a part, and returns it without Haiku's mapping around it."""
    value = value.inner if isinstance(value, Immutable) else value
    self.nodes += 1
    if depth > MAX_DEPTH:
      raise Refused(f'parts nested more than {MAX_DEPTH} deep')
    if self.nodes > MAX_NODES:
      raise Refused(f'more than {MAX_NODES} parts')
    if isinstance(value, Array):
      self._count(value)
    elif not (isinstance(value, (dict, Record, Unknown)) or value is None
              or type(value) in (list, tuple, bool, int, float, str, bytes)):
      raise Refused(f'{type(value).__name__} instead of data')
    return value

  def _count(self, array: Array) -> None:
    if array.unknown:
      return
    if array.dtype is None:
      raise Refused('an array without numbers')
    if id(array) not in self.met:
      self.met[id(array)] = array
      self.left -= num_bytes(array)
      if self.left < 0:
        raise Refused('arrays that are larger than the file')


def materialize(value: Any, file: BinaryIO, size: int) -> Any:
  """The value with NumPy arrays instead of their descriptions.

  Args:
    value: from the machine in `machine`.
    file: the file, for bytes that were left there.
    size: size of the file in bytes; the arrays together cannot be larger.

  Raises:
    Refused: the value is nested too deep, has too many parts, is larger than its file,
      or contains something that is not data.
  """
  check(value, size)
  walk, done = _Walk(size), {}

  def visit(value, depth):
    value = walk.step(value, depth)
    if isinstance(value, dict):
      return {key: visit(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, Record):
      return value._replace(values=visit(value.values, depth + 1))
    if type(value) in (list, tuple):
      return type(value)([visit(inner, depth + 1) for inner in value])
    if isinstance(value, Array):
      if id(value) not in done:
        done[id(value)] = _read(value, file)
      return done[id(value)]
    return value

  return visit(value, 0)


def _read(array: Array, file: BinaryIO) -> np.ndarray:
  numbers = np.empty(num_bytes(array), np.uint8)
  if isinstance(array.data, bytes):
    numbers[:] = np.frombuffer(array.data, np.uint8)
  else:
    _fill(numbers, array.data, file)
  stored = numbers.view(array.dtype).reshape(array.shape, order='F' if array.fortran else 'C')
  return np.require(stored, stored.dtype.newbyteorder('='), 'C')


def _fill(numbers: np.ndarray, blob: Blob, file: BinaryIO) -> None:
  """Reads a blob into uint8 [n] in pieces, to avoid a second copy of it."""
  file.seek(blob.start)
  decoder = codecs.getincrementaldecoder('utf-8')()
  done, left = 0, blob.length
  while left:
    chunk = file.read(min(left, CHUNK))
    left -= len(chunk)
    if not chunk:
      raise EOFError('truncated')
    if blob.latin1:
      chunk = decoder.decode(chunk, not left).encode('latin1')
    numbers[done:done + len(chunk)] = np.frombuffer(chunk, np.uint8)
    done += len(chunk)
  if done != len(numbers):
    raise Refused(f'an array of {len(numbers)} bytes of which {done} are in the file')
