"""Paths that users give, and atomic writes of the files of runs and reports."""

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

# The object stores that can be read and written.
STORE = 'gs'
# A partial file not written to for this many seconds was left by a killed writer.
ABANDONED = 3600.
PARTIAL = re.compile(r'\.[0-9a-f]{32}\.partial$')


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[epath.Path]:
  """Yields a path beside `path`; the file written there replaces `path` when the context ends.

  Until then, or if the context ends with an error, the old file at `path` stays. The
  temporary name is unique, so writers do not collide; the last one to finish wins.
  A killed writer leaves its partial file; the next writer in the same local folder
  removes it once it has not been written to for ABANDONED seconds.

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
  """Opens a file for writing, which replaces `path` on exit as in `atomic_path`.

  Args:
    path: local, or of an object store such as gs://bucket/name.
    mode: 'w' for text in UTF-8, 'wb' for bytes.
    **arguments: passed to `open` for local files.

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
  """Returns the path with ~ expanded.

  Args:
    path: local, or of an object store.
    name: what messages call it, for example '--workdir'.

  Raises:
    InputError: the path is empty, or has a form that is not supported.
  """
  text = os.fspath(path)
  scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]+):(/+)', text)
  if not text:
    raise InputError(f'{name} is empty: is a shell variable not set? Give a path, . for this '
                     'folder.')
  if text != text.strip() or not text.isprintable():
    raise InputError(f'{name} is {text!r}, with leading or trailing white space or an unprintable '
                     'character; give the path without it.')
  if re.match(r'\$\{?\w', text):
    raise InputError(f'{name} is {text}, the name of a shell variable instead of its value; remove '
                     'the quotes that stop the shell from expanding it.')
  if re.match(r'(gs|s3):[^/]', text):
    raise InputError(f'{name} is {text}; an object store is {STORE}://BUCKET/..., with two '
                     'slashes and the name of a bucket.')
  if re.match(r'[A-Za-z]:[\\/]', text) or text.startswith('\\\\'):
    raise InputError(f'{name} is {text}, a Windows path; under WSL the drive C: is /mnt/c.')
  if scheme and scheme[1] != STORE:
    raise InputError(f'{name} is {text}; of object stores and URLs, only {STORE}://BUCKET/... is '
                     'supported. Give such a path or a local one.')
  if scheme and not re.match(f'{STORE}://[^/]', text):
    raise InputError(f'{name} is {text}; an object store is {STORE}://BUCKET/..., with two '
                     'slashes and the name of a bucket.')
  expanded = text if scheme else os.path.expanduser(text)
  if expanded.startswith('~'):
    raise InputError(f'{name} is {text}, and there is no user {text.split("/")[0][1:]}; give ./'
                     f'{text} for a path that starts with ~.')
  return expanded


def check_writable(path: str | os.PathLike) -> None:
  """Checks that `atomic_write` can write a file, before hours of work to produce its contents.

  Raises:
    OSError: it cannot. An existing file at `path` is not changed.
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
  """Removes partial files in a local folder that were last written to over ABANDONED s ago."""
  with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
    for entry in entries:
      if PARTIAL.search(entry.name):
        # Another writer may remove it at the same time.
        with contextlib.suppress(FileNotFoundError):
          if time.time() - entry.stat().st_mtime > ABANDONED:
            os.unlink(entry)


# What to check when an object store cannot be used.
REACHABLE = 'Check the address, the network and the credentials.'


def folder(path: str | os.PathLike) -> epath.Path:
  """An absolute path, local or of an object store such as gs://bucket/name."""
  text = checked_path(path)
  return epath.Path(text if in_object_store(text) else os.path.abspath(text))


def in_object_store(path: str | os.PathLike) -> bool:
  """Whether a path is in an object store."""
  return '://' in os.fspath(path)


def is_of_store(error: BaseException) -> bool:
  """Whether an error comes from an object store (through TensorFlow's file system)."""
  return type(error).__module__.startswith('tensorflow.') and f'{STORE}://' in str(error)


def local_path(path: str | os.PathLike) -> pathlib.Path:
  """An absolute local path; raises InputError for a path in an object store."""
  text = checked_path(path)
  if in_object_store(text):
    raise InputError(f'{path} is in an object store, which only pretraining, evaluation, '
                     'inspection and extraction can read and write; copy the folder to this '
                     'machine, or give a local one.')
  return pathlib.Path(text).absolute()


def writable_folder(workdir: str | os.PathLike) -> epath.Path:
  """Creates the folder, tries to write into it, and returns its absolute path."""
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
