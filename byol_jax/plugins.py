"""Finds plug-ins by name: an encoder, data set, objective, optimizer or evaluator is one file."""

from collections.abc import Callable, Mapping
import importlib
import importlib.util
import inspect
import pathlib
import re
from types import ModuleType
from typing import Any, NamedTuple

from byol_jax import ranges
from byol_jax.errors import InputError

# The function that makes a module a plug-in of its kind.
FUNCTIONS = dict(datasets='records', encoders='build', evaluators='fit', objectives='loss',
                 optimizers='build')
# Keyword arguments of these functions that are not options of a config.
PASSED_BY_THE_CODE = ('batch_norm',)
# Where a config keeps the options of each kind.
SECTIONS = dict(datasets='data.options', encoders='model.encoder_options',
                evaluators='evaluators.{name}', objectives='train.objective_options',
                optimizers='train.optimizer_options')


class Module(NamedTuple):
  """The range of a config key that names a plug-in."""

  kind: str

  def allows(self, value: Any) -> bool:
    """Whether the module exists."""
    return isinstance(value, str) and bool(value) and _spec(self.kind, value) is not None

  def __str__(self) -> str:
    return f'a module of byol_jax/{self.kind} or a dotted path'

  def note(self, value: Any) -> str:
    """Lists the modules that exist."""
    del value
    return f' (there are {", ".join(known(self.kind))})'


def load(kind: str, name: str) -> ModuleType:
  """Imports `byol_jax.<kind>.<name>`, or the module at a dotted path.

  Args:
    kind: a package of byol_jax, one of FUNCTIONS: 'datasets', 'encoders', ...
    name: a module of that package, or any importable dotted path.

  Raises:
    InputError: there is no such module; the message lists the modules that exist.
  """
  if _spec(kind, name) is None:
    raise InputError(f'No module {name!r} among the {kind}. There are: {", ".join(known(kind))}; '
                     'or give the dotted path of a module of your own.')
  return importlib.import_module(_path(kind, name))


def known(kind: str) -> list[str]:
  """Names of byol_jax's plug-ins of a kind: the modules that have the function of its contract.

  The modules are read and not imported, so that listing data sets does not need TensorFlow.
  """
  folder, contract = pathlib.Path(__file__).parent / kind, rf'^def {FUNCTIONS[kind]}\('
  return sorted(path.stem for path in folder.glob('*.py')
                if re.search(contract, path.read_text(), re.MULTILINE))


def _path(kind: str, name: str) -> str:
  return name if '.' in name else f'byol_jax.{kind}.{name}'


def _spec(kind: str, name: str):
  """The import spec of the module; None if there is no such module."""
  path = _path(kind, name)
  if not all(part.isidentifier() for part in path.split('.')):
    return None
  try:
    return importlib.util.find_spec(path)
  except ModuleNotFoundError as error:
    # A missing library that the parent package imports is not the same as a wrong path.
    if error.name and not path.startswith(error.name):
      raise
    return None


def function(kind: str, name: str, function_name: str, options: Mapping[str, Any] = {},
             shared: Mapping[str, bool] = {}) -> Callable[..., Any]:
  """Returns a module's function of the contract, after checking the options it will get.

  Args:
    kind: as in `load`.
    name: as in `load`.
    function_name: the function's name in the contract of the kind.
    options: keyword arguments that come from a config.
    shared: the options that other code handles for all modules of the kind, each with whether
      it is required.

  A module can restrict its options: `RANGES` is a table with the range of each option, and
  `check_options(**options)` raises InputError for values that do not go together.

  Raises:
    InputError: there is no such function, or options are unknown, missing or invalid.
  """
  module = load(kind, name)
  found = getattr(module, function_name, None)
  if found is None:
    raise InputError(f'{name!r} is no module of the {kind}: it has no function {function_name}.')
  _check_names(kind, name, found, options, shared)
  ranges.check_each(SECTIONS[kind].format(name=name), options, getattr(module, 'RANGES', {}))
  if options and hasattr(module, 'check_options'):
    module.check_options(**options)
  return found


def _check_names(kind: str, name: str, found: Callable[..., Any], options: Mapping[str, Any],
                 shared: Mapping[str, bool]) -> None:
  parameters = inspect.signature(found).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return
  # In every contract, the arguments that the code itself passes come first, without a default.
  needed = dict(shared) | {p.name: p.default is p.empty and p.name not in PASSED_BY_THE_CODE
                           for p in parameters if p.kind is p.KEYWORD_ONLY}
  unknown = sorted(set(options) - set(needed))
  missing = sorted(key for key, must in needed.items() if must and key not in options)
  if unknown or missing:
    raise InputError(f'Wrong options for {name!r} ({kind}): '
                     + '; '.join(f'{what} {", ".join(names)}' for what, names in
                                 (('it does not know', unknown), ('it misses', missing)) if names)
                     + '.' + (' A config file sets all of them with '
                              f'plugin_options({kind!r}, {name!r}).' if missing else ''))


def constant(kind: str, name: str, constant_name: str) -> Any:
  """Returns a constant that the contract of a kind requires of each module.

  Args:
    kind: as in `load`.
    name: as in `load`.
    constant_name: the constant's name in the contract of the kind.

  Raises:
    InputError: there is no such module, or it does not have the constant.
  """
  module = load(kind, name)
  if not hasattr(module, constant_name):
    raise InputError(f'{name!r} is no module of the {kind}: it has no constant {constant_name}; '
                     'docs/extending.md shows a whole module.')
  return getattr(module, constant_name)


def has(evaluator: str, flag: str) -> bool:
  """Whether an evaluator's module sets a constant of the contract, such as 'TRAINS_ENCODER'."""
  return getattr(load('evaluators', evaluator), flag, False)
