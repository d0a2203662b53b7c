"""Files of runs and reports: whole, or not there."""

from collections.abc import Iterator
import contextlib
import os
from typing import IO, Any
import uuid

from etils import epath


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
