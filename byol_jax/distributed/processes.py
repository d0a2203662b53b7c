"""The processes of a job: what is theirs alone or in common, and how the loss of one shows."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import os
import random
import socket
import time
from typing import IO
import uuid

from etils import epath
import jax
import numpy as np

from byol_jax import files
from byol_jax.distributed import parallel
from byol_jax.errors import InputError

# Of a process whose job has lost another one: start the same command again.
EXIT_CODE = 76
# Of a workdir, locked and named after the process that holds it.
LOCK = '.job'
# Seconds that a job waits for the one before it, which may still be writing its last step.
PATIENCE = 60.
# Seconds that a file of the first process may take to be seen by the others.
VISIBLE = 30.
# What the transports and the coordination service of JAX say of a process that is gone.
LOST = ('gloo', 'nccl', 'connection reset', 'connection closed', 'connection refused',
        'broken pipe', 'heartbeat', 'coordination', 'unavailable', 'deadline_exceeded',
        'another task died')


def texts_of_all(text: str) -> list[str]:
  """The text of each process, in their order, on all of them."""
  own = np.frombuffer(text.encode(), np.uint8)[:, None]
  lengths = parallel.gather_rows(np.array([[len(own)]])).ravel()
  together = parallel.gather_rows(own).tobytes()
  ends = np.cumsum(lengths)
  return [together[end - length:end].decode() for length, end in zip(lengths, ends)]


def checked_by_first(check: Callable[[], None]) -> None:
  """Runs a check in the first process; its InputError is raised on all, which all call it."""
  problem = ''
  if parallel.is_first_process():
    try:
      check()
    except InputError as error:
      problem = str(error)
  problem = texts_of_all(problem)[0]
  if problem:
    raise InputError(problem)


@contextlib.contextmanager
def alone(workdir: epath.Path) -> Iterator[None]:
  """Keeps other jobs out of a workdir.

  The first process holds a lock of the operating system, which ends with the process,
  however that ends. Object stores have none: there two jobs are not noticed.

  Raises:
    InputError: another job is still there after PATIENCE seconds.
  """
  if not parallel.is_first_process() or files.in_object_store(workdir):
    yield
    return
  with open(workdir / LOCK, 'a+') as file:
    _lock(file, workdir)
    yield


def _lock(file: IO[str], workdir: epath.Path) -> None:
  deadline, said = time.monotonic() + PATIENCE, False
  while True:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except BlockingIOError:
      file.seek(0)
      holder = file.read().strip() or 'another process'
    except OSError as error:
      parallel.say(f'{workdir} cannot be locked ({error.strerror}): a second job on it would not '
                   'be noticed')
      return
    if time.monotonic() >= deadline:
      raise InputError(f'{holder} runs in the workdir {workdir}. Let it end, or stop it, and give '
                       'the same command again; another run needs another --workdir.')
    if not said:
      parallel.say(f'{holder} runs in {workdir}; waiting up to {PATIENCE:.0f} s for its end')
      said = True
    time.sleep(1)
  file.truncate(0)
  file.write(f'Process {os.getpid()} of {socket.gethostname()}')
  file.flush()


def check_shared(folder: epath.Path) -> None:
  """Raises InputError, on all processes, where a process does not see what another writes.

  Such a run would train, and could never be resumed: only one host would hold checkpoints.
  """
  if jax.process_count() == 1:
    return
  token = texts_of_all(uuid.uuid4().hex)[0]
  path = folder / f'.shared.{token}'
  if parallel.is_first_process():
    path.write_text(token)
  parallel.barrier('written')
  seen = _appears(path)
  blind = np.flatnonzero(parallel.gather_rows(np.array([[not seen]])).ravel())
  if parallel.is_first_process():
    path.unlink()
  if len(blind):
    raise InputError(
        f'The workdir {folder} is not shared: what process 0 writes there, process '
        f'{", ".join(map(str, blind))} cannot see. Give a folder of a shared file system, or a '
        'bucket (gs://...).')


def _appears(path: epath.Path) -> bool:
  deadline = time.monotonic() + VISIBLE
  while not path.exists():
    if time.monotonic() > deadline:
      return False
    time.sleep(.2 + random.random())
  return True


def has_lost_one(error: BaseException) -> bool:
  """Whether an error says that another process of the job is gone."""
  if jax.process_count() == 1:
    return False
  while error is not None:
    text = str(error).lower()
    if any(sign in text for sign in LOST):
      return True
    error = error.__cause__ or error.__context__
  return False
