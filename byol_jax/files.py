"""Paths that users give, and files of runs and reports: whole, or not there."""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import re
import time
from typing import IO, Any
import uuid

from etils import epath
import jax

from byol_jax.errors import InputError

# Of object stores that can be read and written.
STORE = 'gs'
# Seconds after which a partial file is what a killed writer has left.
ABANDONED = 3600.
PARTIAL = re.compile(r'\.[0-9a-f]{32}\.partial$')


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[epath.Path]:
  """Gives a path beside `path`; the file written there takes its place when the context ends.

  Until then, and where the context ends with an error, what was at `path` stays. The
  temporary name is unique, so that several writers do not meet; the last one to end decides.
  A writer that is killed leaves its partial file; the next writer in the same local folder
  removes it when it has not been written to for ABANDONED seconds.

  Args:
    path: local, or of an object store such as gs://bucket/name.

  Raises:
    OSError: the file cannot be written.
  """
  if '://' not in os.fspath(path):
    # In an object store a file that was not closed never appears.
    remove_abandoned(os.path.dirname(os.path.abspath(path)))
  partial = _beside(path)
  try:
    yield partial
    partial.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = 'w', **arguments) -> Iterator[IO[Any]]:
  """Opens a file for writing, which takes its place at `path` as that of `atomic_path`.

  Args:
    path: local, or of an object store such as gs://bucket/name.
    mode: 'w' for text in UTF-8, 'wb' for bytes.
    **arguments: of `open`, for local files.

  Raises:
    OSError: the file cannot be written.
  """
  if 'b' not in mode:
    arguments = dict(encoding='utf-8') | arguments
  with atomic_path(path) as partial:
    remote = '://' in os.fspath(path)
    with partial.open(mode) if remote else open(partial, mode, **arguments) as file:
      yield file


def checked_path(path: str | os.PathLike, name: str = 'The path') -> str:
  """The path with ~ expanded.

  Args:
    path: local, or of an object store.
    name: what messages call it, '--workdir' for one.

  Raises:
    InputError: it is empty, or has a form that no path here has.
  """
  text = os.fspath(path)
  scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]+):(/+)', text)
  if not text:
    raise InputError(f'{name} is empty: is a shell variable not set? Give a path, . for this '
                     'folder.')
  if text != text.strip() or not text.isprintable():
    raise InputError(f'{name} is {text!r}, with white space at an end or a character that cannot '
                     'be printed; give the path without it.')
  if re.match(r'\$\{?\w', text):
    raise InputError(f'{name} is {text}, a shell variable in the place of its value; leave out the '
                     'quotes that keep the shell from reading it.')
  if re.match(r'(gs|s3):[^/]', text):
    raise InputError(f'{name} is {text}; an object store is {STORE}://BUCKET/..., with two '
                     'slashes and the name of a bucket.')
  if re.match(r'[A-Za-z]:[\\/]', text) or text.startswith('\\\\'):
    raise InputError(f'{name} is {text}, a path of Windows; under WSL the drive C: is /mnt/c.')
  if scheme and scheme[1] != STORE:
    raise InputError(f'{name} is {text}; of object stores and URLs only {STORE}://BUCKET/... can '
                     'be used. Give such a path or a local one.')
  if scheme and not re.match(f'{STORE}://[^/]', text):
    raise InputError(f'{name} is {text}; an object store is {STORE}://BUCKET/..., with two '
                     'slashes and the name of a bucket.')
  expanded = text if scheme else os.path.expanduser(text)
  if expanded.startswith('~'):
    raise InputError(f'{name} is {text}, and there is no user {text.split("/")[0][1:]}; give ./'
                     f'{text} for a path that begins with ~.')
  return expanded


def check_writable(path: str | os.PathLike) -> None:
  """Tries whether `atomic_write` can write a file, before hours of work for what is in it.

  Raises:
    OSError: it cannot; what is at `path` stays as it is.
  """
  if epath.Path(path).is_dir():
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
  probe = _beside(path)
  probe.write_bytes(b'')
  probe.unlink()


def _beside(path: str | os.PathLike) -> epath.Path:
  """A new name for a partial file of `path`."""
  return epath.Path(f'{os.fspath(path)}.{uuid.uuid4().hex}.partial')


def remove_abandoned(folder: str | os.PathLike) -> None:
  """Removes the partial files in a local folder that nobody has written to for ABANDONED s."""
  with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
    for entry in entries:
      if PARTIAL.search(entry.name):
        # Another writer may remove it at the same time.
        with contextlib.suppress(FileNotFoundError):
          if time.time() - entry.stat().st_mtime > ABANDONED:
            os.unlink(entry)


# What to look at where an object store cannot be used.
REACHABLE = 'Check the address, the network and the credentials.'


def folder(path: str | os.PathLike) -> epath.Path:
  """An absolute path, local or of an object store such as gs://bucket/name."""
  text = checked_path(path)
  return epath.Path(text if in_object_store(text) else os.path.abspath(text))


def in_object_store(path: str | os.PathLike) -> bool:
  """Whether a path is of a bucket."""
  return '://' in os.fspath(path)


def is_of_store(error: BaseException) -> bool:
  """Whether an error is of an object store, which TensorFlow's file system reads and writes."""
  return type(error).__module__.startswith('tensorflow.') and f'{STORE}://' in str(error)


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """An absolute path; raises InputError for one of an object store."""
  text = checked_path(path)
  if in_object_store(text):
    raise InputError(f'{path} lies in an object store, which only pretraining, evaluation, '
                     'inspection and extraction read and write; copy the folder to this machine, '
                     'or give a local one.')
  return pathlib.Path(text).absolute()


def writable_folder(workdir: str | os.PathLike) -> epath.Path:
  """Makes the folder, tries to write into it, and returns its absolute path."""
  path = folder(workdir)
  try:
    if path.exists() and not path.is_dir():
      raise InputError(f'The workdir {path} is a file; give a folder as --workdir.')
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.writable.{jax.process_index()}.{os.getpid()}'
    probe.write_text('')
    probe.unlink()
  except OSError as error:
    raise InputError(f'The workdir {path} is not writable ({error.strerror or error}); give '
                     'another --workdir.') from error
  except Exception as error:
    if not is_of_store(error):
      raise
    raise InputError(f'The workdir {path} cannot be used: {" ".join(str(error).split())}. '
                     f'{REACHABLE}') from error
  return path
