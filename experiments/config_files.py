"""Reads config files before the flags are parsed, so that errors in them fit on one line."""

from collections.abc import Iterator, Mapping
import difflib
import importlib.util
import inspect
import os
import pathlib
from types import ModuleType
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags

from byol_jax import files
from byol_jax.config import is_path, range_of
from byol_jax.errors import InputError
from experiments.configs import default
from experiments.configs.eval import default as eval_default

# The commands that take each kind of config, and the file with all its keys.
KINDS = dict(
    pretraining=('experiments.pretrain, sweep and benchmark', default),
    evaluation=('experiments.evaluate', eval_default))


def module(path: str) -> tuple[ModuleType, list[str]]:
  """The module of a config file, and its argument (the part after the colon) as a list.

  Raises:
    InputError: there is no such file, or it is not valid Python.
  """
  file, colon, argument = path.partition(':')
  if not file:
    raise InputError('--config is empty: is a shell variable not set? Give a file from '
                     'experiments/configs or your own.')
  if not os.path.isfile(file):
    raise InputError(f'No config file {file} (--config).')
  if pathlib.Path(file).suffix != '.py':
    raise InputError(f'{file} is not a Python file (--config): a config is one with a function '
                     'get_config(), like those in experiments/configs.')
  if colon and not argument:
    raise InputError(f'--config is {path} with nothing after the colon; leave the colon out, or '
                     'give the argument of the config there.')
  spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
  found = importlib.util.module_from_spec(spec)
  guarded(file, spec.loader.exec_module, found)
  return found, [argument] if argument else []


def read(path: str, kind: str) -> ml_collections.ConfigDict:
  """Reads the config of a file.

  Args:
    path: the file, with what follows its colon.
    kind: the kind that the command takes, one of KINDS.

  Raises:
    InputError: there is no config, or it is not of this kind.
  """
  found, argument = module(path)
  file = path.partition(':')[0]
  if not callable(getattr(found, 'get_config', None)):
    raise InputError(f'{file} has no function get_config(), which returns the config; see '
                     f'{_home(kind)}.')
  parameters = [p for p in inspect.signature(found.get_config).parameters.values()
                if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)]
  if argument and not parameters:
    raise InputError(f'{file} takes no argument, but {argument[0]!r} is given after the colon; '
                     'leave both out.')
  if not argument and any(p.default is p.empty and p.kind is not p.VAR_POSITIONAL
                          for p in parameters):
    raise InputError(f'{file} needs an argument after a colon, for its get_config('
                     f'{parameters[0].name}): --config={file}:VALUE.')
  config = guarded(file, found.get_config, *argument)
  if not isinstance(config, ml_collections.ConfigDict) or isinstance(
      config, ml_collections.FrozenConfigDict):
    raise InputError(f'get_config() of {file} returns {_article(config)}, not a ConfigDict of '
                     f'ml_collections, whose keys can be overridden; {_home(kind)} makes one.')
  check_kind(file, config, kind)
  return config


def check_kind(file: str, config: ml_collections.ConfigDict, kind: str) -> None:
  """Raises InputError for a config of another kind, or without the exact keys of its kind."""
  own = set(keys(config))
  known = {name: set(keys(home.get_config())) for name, (_, home) in KINDS.items()}
  other, = KINDS.keys() - {kind}
  # Decided by the keys that it has: missing keys, even most of them, say nothing about its kind.
  if len(own & known[other] - known[kind]) > len(own & known[kind] - known[other]):
    raise InputError(f'{file} is not {_article_of(kind)} config but {_article_of(other)} config, '
                     f'which {KINDS[other][0]} take{"s" * (other == "evaluation")}.')
  # A section that is missing completely is named alone, without its keys.
  missing = {key if key.split('.')[0] in config else key.split('.')[0] for key in known[kind] - own}
  wrong = [f'{what} {_some(sorted(found))}' for what, found in (
      ('lacks', missing), ('has the unknown', own - known[kind])) if found]
  if wrong:
    raise InputError(f'{file} is not {_article_of(kind)} config: it {" and ".join(wrong)}. '
                     f'{_home(kind)} has all keys; start from its get_config().')


def check_overrides(path: str, kind: str, arguments: list[str]) -> None:
  """Raises InputError for an unusable config, or for an override that does not fit it."""
  config = read(path, kind)
  file, known = path.partition(':')[0], dict(_leaves(config))
  for argument in arguments:
    if not argument.startswith(('--config.', '-config.')):
      continue
    key, _, value = argument.lstrip('-').removeprefix('config.').partition('=')
    if key not in known:
      # Compare the last part first: a key in the wrong section is the most common mistake.
      nearest = ([k for k in known if k.split('.')[-1] == key.split('.')[-1]]
                 or difflib.get_close_matches(key, known, n=1, cutoff=0.))
      raise InputError(f'{file} has no key {key!r}; the nearest is {nearest[0]!r} '
                       f'(--config.{nearest[0]}=...).')
    # If the file itself has '', that means that there is no path.
    if is_path(config, key) and (value or known[key] != ''):
      files.checked_path(value, f'--config.{key}')
  check_types(path, config, arguments)


def check_types(path: str, config: ml_collections.ConfigDict, arguments: list[str]) -> None:
  """Raises InputError, with the range, for an override that is not of its key's type."""
  for place, argument in enumerate(arguments):
    if not argument.startswith(('--config.', '-config.')):
      continue
    key, equals, value = argument.lstrip('-').removeprefix('config.').partition('=')
    # The value of --config.key VALUE is the next argument.
    given = [argument] if equals else arguments[place:place + 2]
    try:
      command = ['', f'--config={path}', *given]
      alone = flags.FlagValues()
      config_flags.DEFINE_config_file('config', flag_values=alone, sys_argv=command)
      alone(command, known_only=True)
    except KeyError as error:
      if not key.startswith('evaluators.'):
        raise
      raise InputError(f'--config.{key} cannot be set on the command line: a name with dots is not '
                       'a path of keys. Set the option in a config file.') from error
    except (flags.Error, TypeError, ValueError, OverflowError) as error:
      said = repr(value) if equals else ' '.join(map(repr, given[1:])) or 'without a value'
      raise InputError(f'--config.{key} is {said}; it can be '
                       f'{range_of(config, key) or "a value of its type"}.'
                       ) from error


def check_nones(path: str, kind: str, given: Mapping[str, Any]) -> None:
  """Raises InputError if a key is set to None but is not a placeholder in its file."""
  without = {key for key, value in given.items() if value is None}
  if without and (wrong := sorted(without - set(_optional(read(path, kind))))):
    raise InputError(f'{wrong[0]} cannot be None (--config.{wrong[0]}); without the flag it has '
                     f'the value from {path.partition(":")[0]}.')


def _optional(config: ml_collections.ConfigDict, prefix: str = '') -> Iterator[str]:
  """The keys that can be None: those declared as placeholders."""
  for key, value in config.items(preserve_field_references=True):
    if isinstance(value, ml_collections.FieldReference):
      yield f'{prefix}{key}'
    elif isinstance(value, ml_collections.ConfigDict):
      yield from _optional(value, f'{prefix}{key}.')


def check_paths(config: ml_collections.ConfigDict) -> None:
  """Raises InputError if an option of the data set is a path with an impossible form."""
  for name, value in config.data.options.items():
    key = f'data.options.{name}'
    if isinstance(value, str) and value and is_path(config, key):
      files.checked_path(value, f'config.{key}')


def keys(config: Mapping[str, Any], prefix: str = '') -> Iterator[str]:
  """The keys of a config, without the options of plug-ins, which depend on the plug-in."""
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict) and not (
        key.endswith('options') or key in ('evaluators', 'learning_rate_multipliers')):
      yield from keys(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'


def _leaves(config: ml_collections.ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _leaves(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def guarded(file: str, function, *arguments):
  """Calls a function of a config file; its errors become one line."""
  try:
    return function(*arguments)
  except InputError:
    raise
  except SystemExit as error:
    # For example argparse, which prints its own message and exits with a number.
    said = '' if error.code is None else f' ({str(error.code)[:200]})'
    raise InputError(f'{file} cannot be read as a config: it ends the program, as sys.exit() does'
                     f'{said}. A config only returns its values; it does not read the '
                     'command line.') from error
  except Exception as error:
    text = (str(error).strip().splitlines() or ['no message'])[0]
    raise InputError(f'{file} cannot be read as a config: {type(error).__name__}: {text}'
                     ) from error


def _home(kind: str) -> str:
  home = pathlib.Path(KINDS[kind][1].__file__)
  return 'experiments/' + home.relative_to(pathlib.Path(__file__).parent).as_posix()


def _article(value: Any) -> str:
  name = type(value).__name__
  return 'nothing' if value is None else f'{"an" if name[0].lower() in "aeiou" else "a"} {name}'


def _article_of(kind: str) -> str:
  return f'{"an" if kind[0] in "aeiou" else "a"} {kind}'


def _some(names: list[str]) -> str:
  left = len(names) - 5
  listed = ', '.join(names[:5]) + (f' and {left} more' if left > 0 else '')
  return f'key{"s" * (len(names) > 1)} {listed}'
