"""The globals that a checkpoint's pickle may name, and what stands in for each.

A pickle names functions and classes, and says with what to call them. Nothing that a
file names is ever imported. The names of ALLOWED are looked up here, by both of their
parts, and give small functions and records of this module; they handle descriptions of
arrays, not arrays. Any other name is refused.

Old and new names of the same thing stand side by side: numpy 1 and 2, JAX's array
classes since 2020, Haiku's immutable mappings, dill's helpers.
"""

from collections.abc import Callable
import math
from typing import Any, NamedTuple

DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
MAX_DIMENSIONS = 32
MAX_FIELDS = 64


class Refused(Exception):
  """What a file asks for and does not get."""


class Unknown:
  """Stands for what a scan does not know."""


class Blob(NamedTuple):
  """Bytes that are left in the file.

  start: offset in the file.
  length: bytes there.
  latin1: they are UTF-8 text whose characters are the bytes, as pickles of protocol 2
    write them.
  """

  start: int
  length: int
  latin1: bool


class Text(NamedTuple):
  """A long text that is left in the file; see Blob."""

  start: int
  length: int


class DType:
  """A dtype: '<f4' after its state was set."""

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
  """What a file says of an array.

  dtype: as numpy writes it, '<f4'; None before its state was set.
  shape: of the array.
  fortran: the bytes are in the order of columns.
  data: its bytes, or where they lie.
  unknown: its state has a part that a scan does not know.
  """

  def __init__(self):
    self.dtype, self.shape, self.fortran, self.data = None, (0,), False, b''
    self.unknown = False

  def set_state(self, state: Any) -> None:
    """Takes the state that numpy gives an array: version, shape, dtype, order, bytes."""
    if type(state) is not tuple or len(state) != 5:
      raise Refused('an array whose state is not numpy\'s')
    if self.dtype is not None:
      raise Refused('an array whose state is set twice')
    _, shape, dtype, fortran, data = state
    if isinstance(data, list):
      raise Refused('an array of objects')
    self.fill(shape, dtype, fortran, data)

  def fill(self, shape: Any, dtype: Any, fortran: Any, data: Any) -> None:
    """Takes shape and bytes, once they are found to fit each other."""
    if not isinstance(dtype, DType) or not isinstance(data, (bytes, Blob)):
      raise Refused('an array without a dtype or bytes')
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or not all(
        type(size) is int and 0 <= size < 2 ** 40 for size in shape):
      raise Refused('an array of an impossible shape')
    wanted = math.prod(shape) * int(dtype.code[1])
    # As text a byte takes one or two bytes of the file.
    given = len(data) if isinstance(data, bytes) else data.length
    least = given if isinstance(data, bytes) or not data.latin1 else -(-given // 2)
    if not least <= wanted <= given:
      raise Refused(f'an array of {wanted} bytes of which {given} bytes are in the file')
    self.dtype, self.shape, self.fortran, self.data = str(dtype), shape, bool(fortran), data


class RecordType(NamedTuple):
  """A named tuple's name and fields."""

  name: str
  fields: tuple[str, ...]

  def make(self, values: Any) -> 'Record':
    """A named tuple of these values."""
    if type(values) is not tuple or len(values) != len(self.fields):
      raise Refused(f'{self.name} with other fields than {", ".join(self.fields) or "none"}')
    return Record(self.name, self.fields, values)


class Record(NamedTuple):
  """A named tuple of the file."""

  name: str
  fields: tuple[str, ...]
  values: tuple[Any, ...]


class Immutable:
  """One of Haiku's immutable mappings, made empty and then given its state.

  It refers to the dict of that state: copies of copies would grow without bound.
  """

  def __init__(self):
    self.inner = {}

  def set_state(self, state: Any) -> None:
    """Takes the attributes of such a mapping, as a dict or as Python pickles slots."""
    if type(state) is tuple and len(state) == 2 and state[0] is None:
      state = state[1]
    inner = [state[key] for key in ('_storage', '_mapping') if key in state
             ] if type(state) is dict else []
    if len(inner) != 1 or not isinstance(inner[0], dict):
      raise Refused('a mapping whose state is not Haiku\'s')
    self.inner = inner[0]


class ArrayClass:
  """A class of arrays; called without arguments, its state is set afterwards."""

  def make(self, arguments: Any) -> Array:
    """An empty array, or the given one."""
    if arguments == ():
      return Array()
    if type(arguments) is tuple and len(arguments) == 1 and isinstance(arguments[0], Array):
      return arguments[0]
    raise Refused('an array made of something else than an array')


class MappingClass(NamedTuple):
  """A class of mappings; `empty` is what it gives without arguments."""

  empty: Callable[[], Any]

  def make(self, arguments: Any) -> Any:
    """An empty mapping, or the given one."""
    if arguments == ():
      return self.empty()
    if type(arguments) is tuple and len(arguments) == 1 and isinstance(
        arguments[0], (dict, Immutable)):
      return arguments[0]
    raise Refused('a mapping made of something else than a dict')


def _reconstruct(kind, shape, typecode):
  if not isinstance(kind, ArrayClass):
    raise Refused('an array of a class that is none')
  return Array()


def _array(function, arguments, state, others=None):
  """dill's and JAX's way: numpy's function, its arguments and the state."""
  if function is not _reconstruct or type(arguments) is not tuple:
    raise Refused('an array that another function than numpy\'s is to make')
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
  """dill gives a named tuple that was made inside of a function its longer name."""
  if not isinstance(record, RecordType) or attribute != '__qualname__':
    raise Refused('builtins.setattr for something else than the name of a named tuple')


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
  """Named tuples that a file may name without saying their fields."""
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
  """What REDUCE and NEWOBJ give, for something out of ALLOWED or made by it.

  Raises:
    Refused: anything else is called, or with other arguments.
  """
  if isinstance(function, (RecordType, ArrayClass, MappingClass)):
    return function.make(arguments)
  if type(arguments) is not tuple or id(function) not in _KNOWN:
    raise Refused('a call of something that is no function')
  try:
    return function(*arguments)
  except (TypeError, ValueError, AttributeError) as error:
    raise Refused(f'a call with arguments that do not fit ({type(error).__name__})') from error
