"""The allowed values of config keys, in the words used by config comments and errors.

A range `allows` a value or not, and its `str` describes what it allows: 'a number in [0, 1)'. A
table of ranges mirrors a section of the config: {key: range}, with a nested table where the
config has a nested section. A plug-in declares the table of its options as `RANGES`.

Numbers are finite. Whole numbers fit in 32 bits unless their range says otherwise.
"""

from collections.abc import Mapping
import math
import numbers
from typing import Any, NamedTuple, Protocol

from byol_jax.errors import InputError

LARGEST, LARGEST_64_BITS = 2 ** 31 - 1, 2 ** 63 - 1
# How many characters of a value an error shows.
SHOWN = 120
COUNTS = {2: 'two', 3: 'three'}


class Range(Protocol):
  """The allowed values of a key."""

  def allows(self, value: Any) -> bool:
    """Whether the value is in the range."""

  def __str__(self) -> str:
    """A description that fits after 'it can be'."""


class Number(NamedTuple):
  """An interval of finite numbers; `ends` are its brackets: '[)' excludes `high`."""

  low: float
  high: float
  ends: str
  whole: bool

  def allows(self, value: Any) -> bool:
    """A bool is not a number, and 4.0 is not a whole number; a whole number is a number."""
    if isinstance(value, bool) or not isinstance(
        value, numbers.Integral if self.whole else numbers.Real):
      return False
    try:
      finite = math.isfinite(value)
    except OverflowError:
      return False
    above = self.low < value if self.ends[0] == '(' else self.low <= value
    below = value < self.high if self.ends[1] == ')' else value <= self.high
    return finite and above and below

  def note(self, value: Any) -> str:
    """A note that a whole number is too large for its type, which `str` does not say."""
    too_large = (self.whole and isinstance(value, int) and value > self.high
                 and self.high in (LARGEST, LARGEST_64_BITS))
    return f', at most {self.high}' if too_large else ''

  def bounds(self) -> str:
    """The bounds to write after 'a number'; omits the limits of the number's type."""
    if self.high in (math.inf, LARGEST, LARGEST_64_BITS):
      if self.low == -math.inf:
        return ''
      return f' above {self.low}' if self.ends[0] == '(' else f' of {self.low} or more'
    return f' in {self.ends[0]}{self.low}, {self.high}{self.ends[1]}'

  def __str__(self) -> str:
    return ('a whole number' if self.whole else 'a number') + self.bounds()


class OneOf(NamedTuple):
  """One of a set of words or other values; types must match: True is not 1."""

  values: tuple[Any, ...]

  def allows(self, value: Any) -> bool:
    """Whether the value is one of them."""
    return any(type(value) is type(one) and value == one for one in self.values)

  def __str__(self) -> str:
    *most, last = map(repr, self.values)
    return f'{", ".join(most)} or {last}' if most else last


class Text(NamedTuple):
  """A non-empty text; `what` names its kind, for example 'a path'."""

  what: str = 'a text'

  def allows(self, value: Any) -> bool:
    """Whether the value is a non-empty text."""
    return isinstance(value, str) and bool(value)

  def __str__(self) -> str:
    return self.what


class Either(NamedTuple):
  """The values that at least one of two ranges allows."""

  first: Range
  second: Range

  def allows(self, value: Any) -> bool:
    """Whether either range allows the value."""
    return self.first.allows(value) or self.second.allows(value)

  def note(self, value: Any) -> str:
    """The note of the first range."""
    return _note(self.first, value)

  def __str__(self) -> str:
    return f'{self.first} or {self.second}'


class Several(NamedTuple):
  """A tuple or list of values that `each` allows.

  least: the minimum number of values.
  exactly: the exact number of values; 0 for any number.
  order: 'ascending' (equal values are allowed), 'each once', or '' for any order.
  """

  each: Number | OneOf | Text
  least: int = 1
  exactly: int = 0
  order: str = ''

  def allows(self, value: Any) -> bool:
    """Whether the value is such a tuple or list."""
    if not isinstance(value, (tuple, list)) or len(value) < self.least:
      return False
    if self.exactly and len(value) != self.exactly or not all(map(self.each.allows, value)):
      return False
    if self.order == 'ascending':
      return list(value) == sorted(value)
    return self.order != 'each once' or len({*value}) == len(value)

  def __str__(self) -> str:
    count = COUNTS.get(self.exactly, 'one or more' if self.least else 'any number of')
    if isinstance(self.each, Number):
      kind = ('whole numbers' if self.each.whole else 'numbers') + self.each.bounds()
    else:
      kind = f'of {self.each}' if isinstance(self.each, OneOf) else f'{self.each.what[2:]}s'
    return f'{count} {kind}' + (f', {self.order}' if self.order else '')


class Options:
  """A section of options; the table of its plug-in has the ranges of its keys."""

  def allows(self, value: Any) -> bool:
    """Whether the value is a section."""
    return isinstance(value, Mapping)

  def __str__(self) -> str:
    return 'a section of options'


Table = Mapping[str, 'Range | Table']
OPTIONS, FLAG, TEXT, PATH = Options(), OneOf((True, False)), Text(), Text('a path')


def number(low: float = -math.inf, high: float = math.inf, ends: str = '[]') -> Number:
  """The finite numbers from `low` to `high`."""
  return Number(low, high, ends, whole=False)


def whole(low: float = -math.inf, high: int = LARGEST) -> Number:
  """The whole numbers from `low` to `high`, both included."""
  return Number(low, high, '[]', whole=True)


def optional(one: Range) -> Either:
  """A range that also allows None."""
  return Either(one, OneOf((None,)))


def or_empty(one: Range) -> Either:
  """A range that also allows the empty text."""
  return Either(one, OneOf(('',)))


SEED = whole(0)
SIDE = whole(1, 65_535)  # pixels; the largest that a JPEG file can have
POSITIVE, NOT_NEGATIVE = number(0, ends='()'), number(0)
SHARE, MOMENTUM = number(0, 1), number(0, 1, '[)')
# Covers real runs and a thousand times more. Beyond this, float32 gives 0, inf or NaN, and the
# run would only report a loss that is not finite.
FACTOR, DECAY, SCALE = number(0, 1000), number(0, 100), number(1e-4, 1000)
# Values that an evaluator tries one after another.
GRID = Several(POSITIVE, order='each once')


def check(name: str, value: Any, allowed: 'Range | Table') -> None:
  """Checks a value, or a section and everything in it.

  Args:
    name: name of the key, such as 'train.epochs'; '' for a whole config.
    value: the value, or the section as plain dicts.
    allowed: its range or table.

  Raises:
    InputError: the value is not in the range, or a section has unknown or missing keys.
  """
  if not isinstance(allowed, Mapping):
    if not allowed.allows(value):
      raise InputError(f'{name} is {_shown(value)}; it can be {allowed}{_note(allowed, value)}.')
    return
  if not isinstance(value, Mapping):
    raise InputError(f'{name} is {_shown(value)}; it can be a section with {_listed(allowed)}.')
  unknown = [key for key in value if key not in allowed]
  if unknown:
    raise InputError(f'{name or "The config"} has no key {unknown[0]!r}; it can have '
                     f'{_listed(allowed)}.')
  missing = [key for key in allowed if key not in value]
  if missing:
    raise InputError(f'{name or "The config"} lacks the key {missing[0]!r}; it can have '
                     f'{_listed(allowed)}.')
  check_each(name, value, allowed)


def check_each(name: str, section: Mapping[str, Any], table: Table) -> None:
  """Checks those keys of a section that are in the table; raises InputError like `check`."""
  for key, value in section.items():
    if key in table:
      check(f'{name}.{key}' if name else key, value, table[key])


def _note(allowed: Range, value: Any) -> str:
  """What a range adds to its `str` when it rejects a value."""
  return allowed.note(value) if hasattr(allowed, 'note') else ''


def _shown(value: Any) -> str:
  text = ' '.join(repr(value).split())
  return text if len(text) <= SHOWN else f'{text[:SHOWN]}...'


def _listed(table: Table) -> str:
  return ', '.join(table)
