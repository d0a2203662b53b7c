"""Options that say only where a data set is stored: its module's LOCATION_OPTIONS."""

from collections.abc import Mapping
import inspect
import re
from typing import Any

from byol_jax import plugins
from byol_jax.errors import InputError

PREFIX = 'data.options.'
# Replaces a path if it only matters that there is one.
GIVEN = '(a path)'


def options(dataset: str) -> tuple[str, ...]:
  """The names of these options; none for '', and for modules that lack them or no longer exist."""
  if not plugins.Module('datasets').allows(dataset):
    return ()
  return tuple(getattr(plugins.load('datasets', dataset), 'LOCATION_OPTIONS', ()))


def left_out(keys: Mapping[str, Any]) -> dict[str, Any]:
  """A flat config without the locations of the data.

  For options without a default, it matters whether they are given, since the data may not exist.
  """
  dataset, result = keys.get('data.dataset', ''), dict(keys)
  names = options(dataset)
  records = plugins.load('datasets', dataset).records if names else lambda: None
  parameters = inspect.signature(records).parameters
  for name in names:
    key = PREFIX + name
    if name in parameters and parameters[name].default is not inspect.Parameter.empty:
      result.pop(key, None)
    elif result.get(key) is not None:
      result[key] = GIVEN
  return result


def text(dataset: str, values: Mapping[str, Any]) -> str:
  """The paths among a data set's options, in the format that `given` accepts."""
  return ','.join(f'{name}={values[name]}' for name in options(dataset)
                  if isinstance(values.get(name), str))


def given(dataset: str, values: Mapping[str, Any], moved: str) -> dict[str, Any]:
  """A data set's options with the paths in `moved`, such as 'train=FOLDER,test=FOLDER2'.

  Raises:
    InputError: the text has another format, or an option is not a path.
  """
  result = dict(values)
  known = [name for name in options(dataset) if not isinstance(values.get(name), bool)]
  for part in filter(None, re.split(r',(?=\w+=)', moved)):
    name, equals, path = part.partition('=')
    if name not in known or not equals:
      raise InputError(f'data.locations has {part!r}; data set {dataset!r} takes '
                       f'{",".join(f"{one}=PATH" for one in known) or "no paths"}.')
    result[name] = path
  return result
