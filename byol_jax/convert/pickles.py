"""Reads untrusted pickled checkpoints without executing anything in them.

A pickle is a program for a stack machine; `machine` is a small one that imports nothing.
Arrays are only described until the file has been read to its end. Then each is read
once into its place, so that a file takes less memory than its size.

Uses only the standard library and numpy: neither JAX nor Haiku nor dill is imported.
"""

from collections.abc import Iterator
import contextlib
import os
import struct
from typing import Any, BinaryIO, NamedTuple

from byol_jax.convert import contents
from byol_jax.convert.machine import Machine
from byol_jax.convert.stand_ins import Array, Record, Refused
from byol_jax.errors import InputError


class Scan(NamedTuple):
  """What a file names and contains, found without loading it.

  names: {'module.name': times it is named}, for the allowed names.
  unknown: the same for names that are not allowed.
  arrays: {path: dtype and shape}, as far as the file could be read.
  num_bytes: size of these arrays.
  refusal: why loading would fail; '' if it would not.
  """

  names: dict[str, int]
  unknown: dict[str, int]
  arrays: dict[str, str]
  num_bytes: int
  refusal: str

  def __str__(self):
    lines = [f'{count:7d}  {name}' for name, count in self.names.items()]
    lines += [f'{count:7d}  {name}  UNKNOWN' for name, count in self.unknown.items()]
    lines += [f'{name} {array}' for name, array in self.arrays.items()]
    lines += [f'{len(self.arrays)} arrays, {self.num_bytes:,} bytes',
              f'would be refused: {self.refusal}' if self.refusal else
              'can be read to its end; the numbers themselves were not read']
    return '\n'.join(lines)


def load(path: str | os.PathLike) -> Any:
  """Reads a pickled checkpoint.

  Returns:
    Nested dicts, lists, tuples and `stand_ins.Record`s of NumPy arrays, numbers, texts and None.

  Raises:
    InputError: there is no such file, it is damaged, or it asks for anything outside
      `stand_ins.ALLOWED`; the message says what, and at which byte.
  """
  with _opened(path) as (file, size), _explained(path) as place:
    machine = Machine(file, size, place)
    return contents.materialize(machine.run(), file, size)


def scan(path: str | os.PathLike) -> Scan:
  """Reads a file without loading its arrays.

  Raises:
    InputError: there is no such file.
  """
  arrays, refusal = {}, ''
  with _opened(path) as (file, size):
    machine = Machine(file, size, [0], tolerant=True)
    try:
      with _explained(path, machine.place):
        arrays = contents.arrays_of(machine.run(), size)
    except InputError as error:
      refusal = str(error)
      # What had been built until then, keyed by its position on the stack.
      with contextlib.suppress(InputError), _explained(path):
        arrays = contents.arrays_of(
            [one for one in machine.stack if isinstance(one, (dict, list, Array, Record))], size)
  if machine.unknown and not refusal:
    refusal = f'{os.fspath(path)} names {_some(machine.unknown)}.'
  return Scan(machine.names, machine.unknown,
              {name: f'{array.dtype}{list(array.shape)}' for name, array in arrays.items()},
              sum(map(contents.num_bytes, arrays.values())), refusal)


def _some(names: dict[str, int]) -> str:
  shown = ', '.join(list(names)[:10])
  return shown + (f' and {len(names) - 10} more' if len(names) > 10 else '')


@contextlib.contextmanager
def _opened(path) -> Iterator[tuple[BinaryIO, int]]:
  with contextlib.ExitStack() as stack:
    try:
      file = stack.enter_context(open(path, 'rb'))
    except OSError as error:
      raise InputError(f'{os.fspath(path)} cannot be read ({error.strerror}); give the path of a '
                       'checkpoint file.') from error
    yield file, os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def _explained(path, place: list[int] | None = None) -> Iterator[list[int]]:
  """Turns whatever a damaged or hostile file causes into one InputError."""
  place = place if place is not None else [0]
  where = lambda: f'{os.fspath(path)}, byte {place[0]}'
  try:
    yield place
  except Refused as refused:
    raise InputError(f'{where()}: the file asks for {refused}. It is not like the checkpoints '
                     'that DeepMind published; nothing in it was executed.') from None
  except MemoryError:
    raise InputError(f'{where()}: there is not enough memory for what the file holds.') from None
  except EOFError:
    raise InputError(f'{where()}: the file ends too early, or claims to contain more than it '
                     'does; nothing in it was executed. Fetch it again.') from None
  # Python's own objects raise these errors for impossible operands.
  except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError,
          RecursionError, struct.error) as error:
    raise InputError(f'{where()}: the file is damaged or not a pickle ({type(error).__name__}); '
                     'nothing in it was executed. Fetch it again.') from error
