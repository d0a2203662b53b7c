"""Parts found by name: a new encoder, data set, objective or evaluator is one file."""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from byol_jax.errors import InputError


def load(kind: str, name: str) -> ModuleType:
  """Imports `byol_jax.<kind>.<name>`, or the module at a dotted path.

  Args:
    kind: a package of byol_jax: 'datasets', 'encoders', 'evaluators', 'objectives'.
    name: a module of that package, or any importable dotted path.

  Raises:
    InputError: no such module; the message lists those that exist.
  """
  path = name if '.' in name else f'byol_jax.{kind}.{name}'
  try:
    found = importlib.util.find_spec(path)
  except ModuleNotFoundError as error:
    # A library that the parent package imports is another matter than a wrong path.
    if error.name and not path.startswith(error.name):
      raise
    found = None
  if found is None:
    package = importlib.import_module(f'byol_jax.{kind}')
    known = ', '.join(sorted(m.name for m in pkgutil.iter_modules(package.__path__)))
    raise InputError(f'No module {name!r} among the {kind}. There are: {known}; '
                     'or give the dotted path of a module of your own.')
  return importlib.import_module(path)
