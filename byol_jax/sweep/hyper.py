"""Functions that make the points of a sweep, for a config's `get_hyper(hyper)`.

A point is a dict of overrides, {'config.seed': 1}; a sweep is a list of points::

    def get_hyper(hyper):
      return hyper.product([hyper.sweep('config.seed', range(3)),
                            hyper.sweep('config.train.base_tau', [0.9, 0.99])])
"""

from collections.abc import Iterable, Sequence
import itertools
from typing import Any

from byol_jax.errors import InputError

Point = dict[str, Any]


def sweep(key: str, values: Iterable[Any]) -> list[Point]:
  """One point for each value of `key`, which starts with 'config.'."""
  if not key.startswith('config.'):
    raise InputError(f"A sweep needs a key such as 'config.seed', not {key!r}.")
  return [{key: value} for value in values]


def fixed(key: str, value: Any) -> list[Point]:
  """A single point."""
  return sweep(key, [value])


def product(sweeps: Sequence[Sequence[Point]]) -> list[Point]:
  """Every combination; the last sweep varies fastest. Without sweeps it is the one point {}."""
  return [_merged(points) for points in itertools.product(*sweeps)]


def zipit(sweeps: Sequence[Sequence[Point]]) -> list[Point]:
  """Merges the first points of all sweeps, then the second ones, and so on.

  Raises:
    InputError: the sweeps differ in length; a sweep of one point is combined with all.
  """
  length = max(map(len, sweeps), default=0)
  if any(len(points) not in (1, length) for points in sweeps):
    raise InputError(f'zipit needs sweeps of equal length, not {[len(s) for s in sweeps]}; a sweep '
                     'of one point is combined with all.')
  return [_merged([s[i if len(s) > 1 else 0] for s in sweeps]) for i in range(length)]


def chainit(sweeps: Sequence[Sequence[Point]]) -> list[Point]:
  """Concatenates the points of the sweeps."""
  return [dict(point) for points in sweeps for point in points]


def _merged(points: Iterable[Point]) -> Point:
  merged: Point = {}
  for point in points:
    twice = sorted(merged.keys() & point.keys())
    if twice:
      raise InputError(f'{twice[0]} is set by two of the sweeps that are combined.')
    merged |= point
  return merged


def checked(points: Any, path: str) -> Sequence[Point]:
  """Returns what a file's `get_hyper` returned; raises InputError if it is not a list of points."""
  if not isinstance(points, list | tuple) or not all(isinstance(one, dict) for one in points):
    raise InputError(f'get_hyper of {path} must return a list of points, such as hyper.sweep and '
                     f'hyper.product make, not {str(points)[:60]}.')
  return points
