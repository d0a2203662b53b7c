"""A stack machine that runs a pickle, with only the few instructions that checkpoints need.

Names are looked up in `stand_ins.ALLOWED`. The machine has no code, persistent ids,
extension codes, attributes, file access or imports. Long texts stay in the file, and
arrays are only described. Each instruction takes little time and memory, and their number
is limited.
"""

from collections.abc import Callable
import pickle
import pickletools
import struct
from typing import Any, BinaryIO

from byol_jax.convert import stand_ins
from byol_jax.convert.stand_ins import Refused, Unknown

# A ResNet-200 with its optimizer has about 150,000.
MAX_INSTRUCTIONS = 1_000_000
# Arguments of a call: each is checked, and a file can ask for as many calls as instructions.
MAX_ARGUMENTS = 64
# Longer texts and bytes stay in the file.
SHORT = 256
MAX_INTEGER_BYTES = 16


class Machine:
  """The machine, at the start of a file.

  Args:
    file: the pickle.
    size: size of the file in bytes.
    place: a list with one number, updated to the byte offset of the current instruction.
    tolerant: whether names that are not allowed give an Unknown instead of an error.

  `names` and `unknown` count the names in the file.
  """

  def __init__(self, file: BinaryIO, size: int, place: list[int], tolerant: bool = False):
    self.file, self.size, self.place, self.tolerant = file, size, place, tolerant
    self.position, self.stack, self.marks, self.memo = 0, [], [], {}
    self.names, self.unknown = {}, {}

  def run(self) -> Any:
    """Runs the file to its end and returns the value that it describes.

    Raises:
      Refused: the file asks for something that no checkpoint needs.
      ValueError, TypeError, ...: the file is damaged; see `pickles`.
    """
    for _ in range(MAX_INSTRUCTIONS):
      self.place[0] = self.position
      code = self._read(1)
      if code == pickle.STOP:
        break
      instruction = _INSTRUCTIONS.get(code)
      if instruction is None:
        raise Refused(_name_of(code))
      instruction(self)
    else:
      raise Refused(f'more than {MAX_INSTRUCTIONS} instructions')
    if len(self.stack) != 1 or self.marks or self.position != self.size:
      raise ValueError('something is left over')
    return self.stack.pop()

  def _read(self, count: int) -> bytes:
    self._check(count)
    self.position += count
    return self.file.read(count)

  def _check(self, count: int) -> None:
    if not 0 <= count <= self.size - self.position:
      raise EOFError('truncated')

  def _number(self, layout: str) -> Any:
    return struct.unpack(layout, self._read(struct.calcsize(layout)))[0]

  def _line(self) -> str:
    line = self.file.readline(SHORT)
    self.position += len(line)
    if not line.endswith(b'\n'):
      raise Refused('a name without an end')
    return line[:-1].decode()

  def _skip(self, length: int) -> int:
    """Skips bytes in the file and returns their offset."""
    self._check(length)
    start = self.position
    self.position += length
    self.file.seek(self.position)
    return start

  def _text(self, length: int) -> None:
    self.stack.append(self._read(length).decode('utf-8', 'surrogatepass') if length <= SHORT
                      else stand_ins.Text(self._skip(length), length))

  def _data(self, length: int) -> None:
    self.stack.append(self._read(length) if length <= SHORT
                      else stand_ins.Blob(self._skip(length), length, False))

  def _integer(self, length: int) -> None:
    if length > MAX_INTEGER_BYTES:
      raise Refused(f'an integer of {length} bytes')
    self.stack.append(int.from_bytes(self._read(length), 'little', signed=True))

  def _since_mark(self) -> list[Any]:
    start = self.marks.pop()
    items = self.stack[start:]
    del self.stack[start:]
    return items

  def _look_up(self, module: Any, name: Any) -> None:
    if type(module) is not str or type(name) is not str:
      raise Refused('a name that is not text')
    shown = ascii(f'{module}.{name}')[1:-1][:200]
    found = stand_ins.ALLOWED.get((module, name))
    if found is None:
      if not self.tolerant:
        raise Refused(f'{shown}, which no checkpoint needs')
      found = Unknown()
    counts = self.unknown if isinstance(found, Unknown) else self.names
    counts[shown] = counts.get(shown, 0) + 1
    self.stack.append(found)

  def _call(self) -> None:
    arguments, function = self.stack.pop(), self.stack.pop()
    if type(arguments) is tuple and len(arguments) > MAX_ARGUMENTS:
      raise Refused(f'a call with {len(arguments)} arguments')
    if self.tolerant and (isinstance(function, Unknown) or _any_unknown(arguments)):
      self.stack.append(Unknown())
    else:
      self.stack.append(stand_ins.call(function, arguments))

  def _build(self) -> None:
    state, target = self.stack.pop(), self.stack[-1]
    if self.tolerant and isinstance(target, stand_ins.Array) and _any_unknown(state):
      # Also where the file refers to the object again.
      target.unknown = True
    elif self.tolerant and (isinstance(state, Unknown) or _any_unknown(state)):
      self.stack[-1] = Unknown()
    elif isinstance(target, (stand_ins.Array, stand_ins.DType, stand_ins.Immutable)):
      target.set_state(state)
    elif not isinstance(target, Unknown):
      raise Refused(f'a state for {type(target).__name__}, which has none')

  def _set_items(self, items: list[Any]) -> None:
    target = self.stack[-1]
    if isinstance(target, Unknown):
      return
    if not isinstance(target, dict):
      raise Refused(f'items for {type(target).__name__}')
    for key, value in zip(items[::2], items[1::2], strict=True):
      # Other keys could be crafted to collide, or to recurse when hashed.
      if type(key) is not str:
        raise Refused(f'a dict with a key of type {type(key).__name__}')
      # The names are shown on a terminal.
      if not key.isprintable():
        raise Refused('a dict with a key of control characters')
      target[key] = value

  def _append(self, items: list[Any]) -> None:
    if isinstance(self.stack[-1], Unknown):
      return
    if type(self.stack[-1]) is not list:
      raise Refused(f'a list\'s instruction for {type(self.stack[-1]).__name__}')
    self.stack[-1].extend(items)

  def _tuple_of(self, count: int) -> None:
    if count > len(self.stack):
      raise IndexError('too few')
    items = tuple(self.stack[len(self.stack) - count:])
    del self.stack[len(self.stack) - count:]
    self.stack.append(items)

  def _take_two(self) -> list[Any]:
    last = self.stack.pop()
    return [self.stack.pop(), last]

  def _protocol(self) -> None:
    number = self._number('B')
    if not 2 <= number <= 5:
      raise Refused(f'pickle protocol {number}; 2 to 5 are read')


def _any_unknown(arguments: Any) -> bool:
  return type(arguments) is tuple and any(
      isinstance(one, Unknown) or getattr(one, 'unknown', False)
      for one in arguments[:MAX_ARGUMENTS])


def _name_of(code: bytes) -> str:
  known = pickletools.code2op.get(code.decode('latin1'))
  if known is None:
    return f'instruction {code!r}, which does not exist'
  return f'the instruction {known.name}, which no checkpoint needs'


def _constant(value: Any) -> Callable[[Machine], None]:
  return lambda m: m.stack.append(value)


_INSTRUCTIONS: dict[bytes, Callable[[Machine], Any]] = {
    pickle.PROTO: Machine._protocol,
    pickle.FRAME: lambda m: m._check(m._number('<Q')),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.POP: lambda m: m.stack.pop(),
    pickle.POP_MARK: Machine._since_mark,
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.BININT: lambda m: m.stack.append(m._number('<i')),
    pickle.BININT1: lambda m: m.stack.append(m._number('B')),
    pickle.BININT2: lambda m: m.stack.append(m._number('<H')),
    pickle.LONG1: lambda m: m._integer(m._number('B')),
    pickle.LONG4: lambda m: m._integer(m._number('<i')),
    pickle.BINFLOAT: lambda m: m.stack.append(m._number('>d')),
    pickle.SHORT_BINUNICODE: lambda m: m._text(m._number('B')),
    pickle.BINUNICODE: lambda m: m._text(m._number('<I')),
    pickle.BINUNICODE8: lambda m: m._text(m._number('<Q')),
    pickle.SHORT_BINBYTES: lambda m: m._data(m._number('B')),
    pickle.BINBYTES: lambda m: m._data(m._number('<I')),
    pickle.BINBYTES8: lambda m: m._data(m._number('<Q')),
    pickle.BYTEARRAY8: lambda m: m._data(m._number('<Q')),
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.TUPLE1: lambda m: m._tuple_of(1),
    pickle.TUPLE2: lambda m: m._tuple_of(2),
    pickle.TUPLE3: lambda m: m._tuple_of(3),
    pickle.TUPLE: lambda m: m.stack.append(tuple(m._since_mark())),
    pickle.EMPTY_LIST: lambda m: m.stack.append([]),
    pickle.LIST: lambda m: m.stack.append(m._since_mark()),
    pickle.APPEND: lambda m: m._append([m.stack.pop()]),
    pickle.APPENDS: lambda m: m._append(m._since_mark()),
    pickle.EMPTY_DICT: lambda m: m.stack.append({}),
    pickle.SETITEM: lambda m: m._set_items(m._take_two()),
    pickle.SETITEMS: lambda m: m._set_items(m._since_mark()),
    pickle.BINPUT: lambda m: m.memo.__setitem__(m._number('B'), m.stack[-1]),
    pickle.LONG_BINPUT: lambda m: m.memo.__setitem__(m._number('<I'), m.stack[-1]),
    pickle.MEMOIZE: lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    pickle.BINGET: lambda m: m.stack.append(m.memo[m._number('B')]),
    pickle.LONG_BINGET: lambda m: m.stack.append(m.memo[m._number('<I')]),
    pickle.GLOBAL: lambda m: m._look_up(m._line(), m._line()),
    pickle.STACK_GLOBAL: lambda m: m._look_up(*m._take_two()),
    pickle.REDUCE: Machine._call,
    pickle.NEWOBJ: Machine._call,
    pickle.BUILD: Machine._build,
}
