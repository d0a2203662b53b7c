"""The globals that a checkpoint's pickle may name, and their stand-ins.

A pickle names functions and classes, and the arguments to call them with. Nothing that a
file names is ever imported. Names in ALLOWED are looked up here by both of their
parts and give small functions and records of this module, which handle descriptions of
arrays, not arrays. Any other name is refused.

Old and new names of the same thing are both allowed: numpy 1 and 2, JAX's array
classes since 2020, Haiku's immutable mappings, dill's helpers.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
MAX_DIMENSIONS = 32
MAX_FIELDS = 64


class Refused(Exception):
  """A file asked for something that is not allowed."""


class Unknown:
  """Stands for something unknown to a scan."""


class Blob(NamedTuple):
  """Bytes that were left in the file.

  start: offset in the file.
  length: number of bytes in the file.
  latin1: whether they are UTF-8 text whose characters are the bytes, as pickles of
    protocol 2 write them.
  """

  start: int
  length: int
  latin1: bool


class Text(NamedTuple):
  """A long text that was left in the file; see Blob."""

  start: int
  length: int


class DType:
  """A dtype, such as '<f4' after its state was set."""

  def __init__(self, code: str):
    self.code, self.order = code, '='

  def set_state(self, state: Any) -> None:
    """Takes the byte order; fields, subarrays and metadata are refused."""
    if not (type(state) is tuple and 3 <= len(state) <= 9 and state[1] in ('<', '>', '|', '=')
            and all(part is None for part in state[2:5])):
      raise Refused('a dtype with fields or parts of its own')
    self.order = state[1]

  def __str__(self):
    return self.order.replace('|', '=') + self.code


class Array:
  """The description of an array in a file.

  dtype: in numpy's notation, such as '<f4'; None before its state was set.
  shape: shape of the array.
  fortran: whether the bytes are in column-major order.
  data: its bytes, or their position in the file.
  unknown: whether its state has a part that is unknown to a scan.
  """

  def __init__(self):
    self.dtype, self.shape, self.fortran, self.data = None, (0,), False, b''
    self.unknown = False

  def set_state(self, state: Any) -> None:
    """Takes the state of a numpy array: version, shape, dtype, order, bytes."""
    if type(state) is not tuple or len(state) != 5:
      raise Refused('an array whose state is not numpy\'s')
    if self.dtype is not None:
      raise Refused('an array whose state is set twice')
    _, shape, dtype, fortran, data = state
    if isinstance(data, list):
      raise Refused('an array of objects')
    self.fill(shape, dtype, fortran, data)

  def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
    """Takes shape and bytes, after checking that they match."""
    if not isinstance(dtype, DType) or not isinstance(data, (bytes, Blob)):
      raise Refused('an array without a dtype or bytes')
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or not all(
        type(size) is int and 0 <= size < 2 ** 40 for size in shape):
      raise Refused('an array of an impossible shape')
    wanted = math.prod(shape) * int(dtype.code[1])
    # A byte stored as text takes one or two bytes of the file.
    given = len(data) if isinstance(data, bytes) else data.length
    least = given if isinstance(data, bytes) or not data.latin1 else -(-given // 2)
    if not least <= wanted <= given:
      raise Refused(f'an array of {wanted} bytes of which {given} bytes are in the file')
    self.dtype, self.shape, self.fortran, self.data = str(dtype), shape, bool(fortran), data


class RecordType(NamedTuple):
  """The name and fields of a named tuple."""

  name: str
  fields: tuple[str, ...]

  def make(self, values: Any) -> 'Record':
    """Makes a named tuple of these values."""
    if type(values) is not tuple or len(values) != len(self.fields):
      raise Refused(f'{self.name} with other fields than {", ".join(self.fields) or "none"}')
    return Record(self.name, self.fields, values)


class Record(NamedTuple):
  """A named tuple from the file."""

  name: str
  fields: tuple[str, ...]
  values: tuple[Any, ...]


class Immutable:
  """One of Haiku's immutable mappings, created empty; its state is set afterwards.

  It refers to the dict in that state, because copies of copies would grow without limit.
  """

  def __init__(self):
    self.inner = {}

  def set_state(self, state: Any) -> None:
    """Takes the attributes of the mapping, as a dict or in Python's pickle form of slots."""
    if type(state) is tuple and len(state) == 2 and state[0] is None:
      state = state[1]
    inner = [state[key] for key in ('_storage', '_mapping') if key in state
             ] if type(state) is dict else []
    if len(inner) != 1 or not isinstance(inner[0], dict):
      raise Refused('a mapping whose state is not Haiku\'s')
    self.inner = inner[0]


class ArrayClass:
  """A class of arrays; it is called without arguments, and the state is set afterwards."""

  def make(self, arguments: Any) -> Array:
    """An empty array, or the given one."""
    if arguments == ():
      return Array()
    if type(arguments) is tuple and len(arguments) == 1 and isinstance(arguments[0], Array):
      return arguments[0]
    raise Refused('an array made from something that is not an array')


class MappingClass(NamedTuple):
  """A class of mappings; `empty` makes the result of a call without arguments."""

  empty: Callable[[], Any]

  def make(self, arguments: Any) -> Any:
    """An empty mapping, or the given one."""
    if arguments == ():
      return self.empty()
    if type(arguments) is tuple and len(arguments) == 1 and isinstance(
        arguments[0], (dict, Immutable)):
      return arguments[0]
    raise Refused('a mapping made from something that is not a dict')


def _reconstruct(kind, shape, typecode):
  if not isinstance(kind, ArrayClass):
    raise Refused('an array of something that is not an array class')
  return Array()


def _array(function, arguments, state, others=None):
  """Arrays in the form of dill and JAX: numpy's function, its arguments and the state."""
  if function is not _reconstruct or type(arguments) is not tuple:
    raise Refused('an array made by a function other than numpy\'s')
  array = _reconstruct(*arguments)
  array.set_state(state)
  return array


def _from_buffer(data, dtype, shape, order):
  array = Array()
  array.fill(shape, dtype, order == 'F', data)
  return array


def _scalar(dtype, data):
  array = Array()
  array.fill((), dtype, False, data)
  return array


def _dtype(code, *flags):
  if code not in DTYPES:
    raise Refused(f'a dtype other than {", ".join(DTYPES)}')
  return DType(code)


def _encode(text, encoding):
  if encoding not in ('latin1', 'latin-1') or not isinstance(text, (str, Text)):
    raise Refused('an encoding other than latin1')
  return Blob(text.start, text.length, True) if isinstance(text, Text) else text.encode('latin1')


def _no_bytes():
  return b''


def _named_tuple(name, fields, module, *defaults):
  words = (name, *fields) if type(fields) in (tuple, list) and len(fields) <= MAX_FIELDS else ()
  if not words or not all(type(word) is str and word.isidentifier() and len(word) <= 100
                          for word in words):
    raise Refused('a named tuple without proper names')
  return RecordType(name, tuple(fields))


def _set_name(record, attribute, value):
  """dill sets the qualified name of a named tuple that was made inside a function."""
  if not isinstance(record, RecordType) or attribute != '__qualname__':
    raise Refused('builtins.setattr for something other than the name of a named tuple')


def _names() -> dict[tuple[str, str], Any]:
  names = {('_codecs', 'encode'): _encode, ('numpy', 'dtype'): _dtype,
           ('dill._dill', '_create_array'): _array, ('dill.dill', '_create_array'): _array,
           ('dill._dill', '_create_namedtuple'): _named_tuple,
           ('dill.dill', '_create_namedtuple'): _named_tuple,
           ('collections', 'OrderedDict'): MappingClass(dict),
           ('builtins', 'setattr'): _set_name, ('__builtin__', 'setattr'): _set_name,
           ('builtins', 'bytes'): _no_bytes, ('__builtin__', 'bytes'): _no_bytes}
  for package in ('numpy.core', 'numpy._core'):
    names[f'{package}.multiarray', '_reconstruct'] = _reconstruct
    names[f'{package}.multiarray', 'scalar'] = _scalar
    names[f'{package}.numeric', '_frombuffer'] = _from_buffer
  for module, name in (
      ('numpy', 'ndarray'), ('jax.interpreters.xla', 'DeviceArray'),
      ('jax.interpreters.xla', '_DeviceArray'), ('jax._src.device_array', 'DeviceArray'),
      ('jax._src.device_array', '_DeviceArray'), ('jax._src.array', 'ArrayImpl'),
      ('jaxlib.xla_extension', 'DeviceArray'), ('jaxlib.xla_extension', 'ArrayImpl'),
      ('jaxlib.xla_extension', 'Array'), ('jaxlib._jax', 'ArrayImpl'), ('jax', 'Array'),
      ('jax._src.basearray', 'Array'), ('jax.interpreters.pxla', 'ShardedDeviceArray'),
      ('jax.interpreters.pxla', '_ShardedDeviceArray')):
    names[module, name] = ArrayClass()
  for module, name in (('jax._src.array', '_reconstruct_array'),
                       ('jax._src.device_array', 'reconstruct_device_array'),
                       ('jax.interpreters.xla', 'reconstruct_device_array')):
    names[module, name] = _array
  for module in ('haiku._src.data_structures', 'haiku.data_structures', 'haiku'):
    for name in ('FlatMapping', 'frozendict', 'to_immutable_dict', 'to_haiku_dict'):
      names[module, name] = MappingClass(Immutable)
  return names | _records()


def _records() -> dict[tuple[str, str], RecordType]:
  """Named tuples that a file may name without listing their fields."""
  state = RecordType('_ByolExperimentState', ('online_params', 'target_params', 'online_state',
                                              'target_state', 'opt_state'))
  records = {(module, state.name): state
             for module in ('byol.byol_experiment', 'byol_experiment', '__main__')}
  for module in ('byol.utils.optimizers', 'utils.optimizers', 'optimizers'):
    records[module, 'ScaleByLarsState'] = RecordType('ScaleByLarsState', ('mu',))
    records[module, 'AddWeightDecayState'] = RecordType('AddWeightDecayState', ())
  for module in ('optax', 'optax.transform', 'optax._src.transform', 'optax._src.base',
                 'optax._src.wrappers'):
    for name, fields in (
        ('EmptyState', ()), ('IdentityState', ()), ('ScaleState', ()), ('ClipState', ()),
        ('AdditiveWeightDecayState', ()), ('AddDecayedWeightsState', ()),
        ('ScaleByTrustRatioState', ()), ('TraceState', ('trace',)),
        ('ScaleByScheduleState', ('count',)), ('MaskedState', ('inner_state',))):
      records[module, name] = RecordType(name, fields)
  return records


ALLOWED: dict[tuple[str, str], Callable[..., Any] | RecordType | ArrayClass | MappingClass] = (
    _names())
_KNOWN = {id(known) for known in ALLOWED.values()}


def call(function: Any, arguments: Any) -> Any:
  """The result of REDUCE and NEWOBJ, for something in ALLOWED or made by it.

  Raises:
    Refused: something else is called, or the arguments do not fit.
  """
  if isinstance(function, (RecordType, ArrayClass, MappingClass)):
    return function.make(arguments)
  if type(arguments) is not tuple or id(function) not in _KNOWN:
    raise Refused('a call of something that is not a function')
  try:
    return function(*arguments)
  except (TypeError, ValueError, AttributeError) as error:
    raise Refused(f'a call with arguments that do not fit ({type(error).__name__})') from error
