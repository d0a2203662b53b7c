"""What the commands share: their flags, and errors as one message on stderr."""

from collections.abc import Callable, Iterator
import difflib
import importlib.util
import os
import pathlib
import sys
import traceback
from types import ModuleType

# TensorFlow's start-up notices say nothing about a run; set before it is imported.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
# One more notice; decoding and cropping use nothing of it.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from absl import app, flags, logging
import ml_collections
from ml_collections import config_flags
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from byol_jax import config_checks, parallel, preemption, processes
from byol_jax.errors import InputError


def run(main: Callable[..., None], *, positional: bool = False, job: bool = False,
        **help_texts: str) -> None:
  """Defines a required flag per keyword, parses the command line and runs main.

  With `positional`, main gets the arguments that are no flags; without, there may be none.
  With `job`, there are flags for a job of several processes, which is joined before main.

  The flag `config` takes a config file and overrides of its keys; the others take
  strings. Optional flags are defined by the module itself. An InputError ends the
  process with its message and exit code 1, the loss of another process of the job with
  `processes.EXIT_CODE`.
  """
  for name, text in help_texts.items():
    if name == 'config':
      config_flags.DEFINE_config_file('config', None, text, lock_config=True)
    else:
      flags.DEFINE_string(name, None, text)
  flags.mark_flags_as_required(list(help_texts))
  if job:
    flags.DEFINE_bool('multihost', False, 'Join the other processes of this job: Cloud TPU, GKE, '
                      'Slurm or Open MPI are detected.')
    flags.DEFINE_string('coordinator_address', None, 'host:port of process 0, where none of these '
                        'is detected.')
    flags.DEFINE_integer('num_processes', None, 'Of the job, with --coordinator_address.')
    flags.DEFINE_integer('process_id', None, 'Of this process, from 0.')

  def guarded(arguments):
    # JAX tells at INFO of every accelerator that it does not find.
    logging.set_verbosity(logging.WARNING)
    rest = arguments[1:]
    try:
      if rest and not positional:
        raise InputError(f'{rest[0]!r} is no flag; flags look like --workdir=DIR.')
      if job:
        _join()
      main(*[rest] * positional)
    except preemption.Preempted as stop:
      print(stop, file=sys.stderr)
      sys.exit(preemption.EXIT_CODE)
    except InputError as error:
      _leave(f'error: {error}')
    except OSError as error:
      # A full disk or a folder that is gone; the traceback would hide the one line that helps.
      _leave(f'error: {error}. What had been saved is whole; mend it and give the same command.')
    except Exception as error:
      if processes.has_lost_one(error):
        _leave('error: another process of the job is gone; its own messages say why. '
               f'({str(error).strip().splitlines()[0][:200]})', processes.EXIT_CODE)
      _leave(traceback.format_exc())

  app.run(guarded, flags_parser=_parse)


def config_module(path: str) -> tuple[ModuleType, list[str]]:
  """The module of a config's file and its argument, what follows the colon, as a list."""
  file, _, argument = path.partition(':')
  spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module, [argument] if argument else []


def _join() -> None:
  given = {name: flags.FLAGS[name].value
           for name in ('coordinator_address', 'num_processes', 'process_id')}
  if flags.FLAGS.multihost or any(value is not None for value in given.values()):
    parallel.initialize(**given)


def _leave(message: str, code: int = 1) -> None:
  """Ends the process at once.

  An ordinary exit would wait for the other processes of a job, which wait for this one,
  and for threads of a save that cannot succeed.
  """
  print(message.rstrip(), file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(code)


def _parse(arguments: list[str]) -> list[str]:
  """absl's parser, after a look at the overrides that says more than its own errors."""
  try:
    path = next((a.removeprefix('--config=') for a in arguments if a.startswith('--config=')), '')
    if '--config' in arguments[:-1]:
      path = arguments[arguments.index('--config') + 1]
    if path:
      _check_overrides(path, arguments)
    return app.parse_flags_with_usage(arguments)
  except InputError as error:
    sys.exit(f'error: {error}')


def _check_overrides(path: str, arguments: list[str]) -> None:
  """Raises InputError for a missing config file or an override of a key that it has not."""
  file = path.split(':')[0]
  if not os.path.isfile(file):
    raise InputError(f'No config file {file} (--config).')
  config = _parsed(path)
  known = list(_keys(config))
  for argument in arguments:
    if not argument.startswith('--config.'):
      continue
    key = argument.removeprefix('--config.').split('=')[0]
    if key not in known:
      # Compared by the last part first: a key under the wrong section is the commonest slip.
      nearest = ([k for k in known if k.split('.')[-1] == key.split('.')[-1]]
                 or difflib.get_close_matches(key, known, n=1, cutoff=0.))
      raise InputError(f'{file} has no key {key!r}; the nearest is {nearest[0]!r} '
                       f'(--config.{nearest[0]}=...).')
  _check_types(path, config, arguments)


def _check_types(path: str, config: ml_collections.ConfigDict, arguments: list[str]) -> None:
  """Raises InputError, with the range, for an override that is no value of its key's type."""
  for place, argument in enumerate(arguments):
    if not argument.startswith('--config.'):
      continue
    key, equals, value = argument.removeprefix('--config.').partition('=')
    # The value of --config.key VALUE is the next argument.
    given = [argument] if equals else arguments[place:place + 2]
    try:
      command = ['', f'--config={path}', *given]
      alone = flags.FlagValues()
      config_flags.DEFINE_config_file('config', flag_values=alone, sys_argv=command)
      alone(command, known_only=True)
    except (flags.Error, TypeError, ValueError, OverflowError) as error:
      said = repr(value) if equals else ' '.join(map(repr, given[1:])) or 'without a value'
      raise InputError(f'--config.{key} is {said}; it can be '
                       f'{config_checks.range_of(config, key) or "a value of its type"}.'
                       ) from error


def _parsed(path: str) -> ml_collections.ConfigDict:
  """The config of a path with its argument; what its file raises becomes one line."""
  try:
    return ConfigFileFlagParser('config').parse(path)
  except Exception as error:
    # The parser raises what it meets once more, with a traceback for a text.
    chain = [error]
    while chain[-1].__context__ is not None:
      chain.append(chain[-1].__context__)
    own = [one for one in chain if isinstance(one, InputError)]
    if own:
      raise own[-1] from None
    cause = chain[-1]
    file, _, argument = path.partition(':')
    if argument and isinstance(cause, TypeError):
      raise InputError(f'{file} takes no argument such as {argument!r} after the colon.') from error
    raise InputError(f'{file} cannot be read as a config: {type(cause).__name__}: '
                     f'{str(cause).splitlines()[0]}') from error


def _keys(config: ml_collections.ConfigDict, prefix: str = '') -> Iterator[str]:
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict):
      yield from _keys(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'
