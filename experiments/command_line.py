"""Code shared by the commands: flags, and errors as one message on stderr."""

from collections.abc import Callable
import contextlib
import os
import pathlib
import signal
import sys
import traceback
from typing import Any

from byol_jax.distributed import preemption

if pathlib.Path(__file__).parent in pathlib.Path(
    getattr(sys.modules['__main__'], '__file__', None) or '/').absolute().parents:
  # Done before the imports, which take seconds: until there is something to save, a signal ends a
  # command at once.
  _signals = contextlib.ExitStack()
  _signals.enter_context(preemption.handling(preemption.leave))

from absl import app, flags, logging
from ml_collections import config_flags

try:
  # JAX reads its environment variables on import.
  from experiments import config_files, native_output
  from byol_jax import files
  from byol_jax.distributed import devices, parallel, processes
  from byol_jax.errors import InputError
except ValueError as refused:
  _named = [f'{name}={value}' for name, value in os.environ.items()
            if name.startswith('JAX_') and name.casefold() in str(refused).casefold()]
  if not _named:
    raise
  sys.exit(f'error: JAX does not take {", ".join(_named)} ({refused}). Correct or unset this '
           'environment variable.')


class _Path(flags.ArgumentParser):
  """The parser of a flag that is a path."""

  def __init__(self, name: str):
    self._name = name

  def parse(self, argument: str) -> str:
    """The path with ~ expanded."""
    return files.checked_path(argument, f'--{self._name}')


def define_path(name: str, default: str | None, text: str) -> None:
  """Defines a flag that takes a path, local or in an object store."""
  flags.DEFINE(_Path(name), name, default, text, serializer=flags.ArgumentSerializer())


def run(main: Callable[..., None], *, positional: bool = False, job: bool = False,
        computes: bool = True, kind: str = 'pretraining', **help_texts: str) -> None:
  """Defines a required flag per keyword, parses the command line and runs main.

  With `positional`, main gets the arguments that are not flags (paths or names); without it
  there must be none. With `job`, there are flags for a job of several processes, which is joined
  before main. `computes` says whether main needs JAX's devices.

  The flag `config` takes a config file of one of `config_files.KINDS` and overrides of its keys;
  the others take paths. Each command's module defines its optional flags. An InputError ends the
  process with its message and exit code 1, the loss of another process of the job with
  `processes.EXIT_CODE`, and a request to stop with `preemption.EXIT_CODE` if something was saved,
  otherwise with 128 + the number of the signal.
  """
  for name, text in help_texts.items():
    if name == 'config':
      config_flags.DEFINE_config_file('config', None, text, lock_config=True)
    else:
      define_path(name, None, text)
  if job:
    flags.DEFINE_bool('multihost', False, 'Join the other processes of this job; detects Cloud '
                      'TPU, GKE, Slurm and Open MPI.')
    flags.DEFINE_string('coordinator_address', None, 'host:port of process 0, if no cluster is '
                        'detected.')
    flags.DEFINE_integer('num_processes', None, 'Processes in the job, with --coordinator_address.')
    flags.DEFINE_integer('process_id', None, 'Number of this process, from 0.')

  def guarded(arguments):
    # At INFO, JAX logs every accelerator that it does not find.
    logging.set_verbosity(logging.WARNING)
    rest = arguments[1:]
    with _one_line():
      for name, text in help_texts.items():
        if flags.FLAGS[name].value is None:
          raise InputError(f'--{name} is missing. {text}')
      if rest and not positional:
        raise InputError(f'{rest[0]!r} is not a flag; flags look like --workdir=DIR.')
      if 'config' in help_texts:
        config_files.check_paths(flags.FLAGS.config)
      if job:
        _join()
      if computes:
        devices.check_platforms()
      main(*[rest] * positional)
      # The reader of the buffered output may be gone.
      sys.stdout.flush()

  native_output.start()
  app.run(guarded, flags_parser=lambda arguments: _parse(
      arguments, kind if 'config' in help_texts else None))


@contextlib.contextmanager
def _one_line():
  """Turns an error in the context into one line and an exit code."""
  try:
    yield
  except preemption.Preempted as stop:
    _leave(str(stop), preemption.EXIT_CODE)
  except InputError as error:
    _leave(f'error: {error}')
  except BrokenPipeError:
    # The reader of the output, such as `head`, has closed it.
    _leave('', 128 + signal.SIGPIPE)
  except OSError as error:
    # A full disk or a missing folder; a traceback would hide the one line that helps.
    _leave(f'error: {error}. Files saved before are complete; fix the cause and run the same '
           'command.')
  except Exception as error:
    if processes.is_peer_failure(error):
      _leave('error: another process of the job is gone; its own messages say why. '
             f'({str(error).strip().splitlines()[0][:200]})', processes.EXIT_CODE)
    if files.is_of_store(error):
      _leave(f'error: {" ".join(str(error).split())}. {files.REACHABLE}')
    _leave(traceback.format_exc())


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
  for stream, text in ((sys.stdout, ''), (sys.stderr, message and message.rstrip() + '\n')):
    # Both may be gone, together with a terminal or `tee`.
    with contextlib.suppress(OSError):
      stream.write(text)
      stream.flush()
  os._exit(code)


def _parse(arguments: list[str], kind: str | None) -> list[str]:
  """Parses flags with absl, after checks of the config with clearer errors than absl's.

  Errors of absl are also reduced to one line.
  """
  with _one_line():
    path = _given(arguments, 'config') if kind else None
    for type_, parser in ((str, flags.ArgumentParser()), (int, flags.IntegerParser())):
      config_flags.register_flag_parser_for_type(type_, _OrNone(parser))
    if path is not None:
      config_files.check_overrides(path, kind, arguments)
    try:
      rest = flags.FLAGS(arguments)
    except flags.Error as error:
      own = error.__context__
      raise InputError(str(own) if isinstance(own, InputError) else
                       ' '.join(str(error).split())) from error
    if path is not None:
      config_files.check_nones(path, kind, config_flags.get_override_values(flags.FLAGS['config']))
    return rest


class _OrNone(flags.ArgumentParser):
  """Reads None as in a config file, and anything else with the given parser."""

  def __init__(self, parser: flags.ArgumentParser):
    super().__init__()
    self.parser = parser
    self.syntactic_help = parser.syntactic_help

  def parse(self, argument: Any) -> Any:
    return None if argument in (None, 'None') else self.parser.parse(argument)

  def flag_type(self) -> str:
    return self.parser.flag_type()


def _given(arguments: list[str], name: str) -> str | None:
  """The value given for a flag, in any of the forms that absl accepts."""
  for argument, following in zip(arguments[1:], [*arguments[2:], None]):
    flag, equals, value = argument.partition('=')
    if argument == '--':
      break
    if flag in (f'--{name}', f'-{name}'):
      return value if equals else following
  return None
