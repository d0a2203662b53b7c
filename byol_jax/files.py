"""Paths that users give, and files of runs and reports: whole, or not there."""

from collections.abc import Iterator
import contextlib
import os
import re
from typing import IO, Any
import uuid

from etils import epath

from byol_jax.errors import InputError

# Of object stores that can be read and written.
STORE = 'gs'


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = 'w', **arguments) -> Iterator[IO[Any]]:
  """Opens a file for writing, which takes its place at `path` when the context ends.

  Until then, and where the context ends with an error, what was at `path` stays. The
  temporary name beside it is unique, so that several writers do not meet; the last one
  to end decides.

  Args:
    path: local, or of an object store such as gs://bucket/name.
    mode: 'w' for text in UTF-8, 'wb' for bytes.
    **arguments: of `open`, for local files.

  Raises:
    OSError: the file cannot be written.
  """
  partial = f'{os.fspath(path)}.{uuid.uuid4().hex}.partial'
  remote = '://' in partial
  if 'b' not in mode:
    arguments = dict(encoding='utf-8') | arguments
  try:
    with epath.Path(partial).open(mode) if remote else open(partial, mode, **arguments) as file:
      yield file
    if remote:
      epath.Path(partial).replace(path)
    else:
      os.replace(partial, path)
  except BaseException:
    with contextlib.suppress(OSError):
      epath.Path(partial).unlink(missing_ok=True)
    raise


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
    raise InputError(f'{name} is empty, as a shell variable is that is not set; give a path, . for '
                     'this folder.')
  if text != text.strip() or not text.isprintable():
    raise InputError(f'{name} is {text!r}, with white space at an end or a character that cannot '
                     'be printed; give the path without it.')
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
