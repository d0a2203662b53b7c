"""The processes of a job: locks, shared checks, and detection of a lost process."""

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

# Exit code when the job has lost another process: run the same command again.
EXIT_CODE = 76
# The lock file of a workdir; it contains the name of the process that holds it.
LOCK = '.job'
# Seconds that a job waits for the previous job, which may still be writing its last step.
PATIENCE = 60.
# Seconds until a file from the first process must be visible to the others.
VISIBLE = 30.
# Words in the errors of JAX's transports and coordination service when a process is gone.
LOST = ('gloo', 'nccl', 'connection reset', 'connection closed', 'connection refused',
        'broken pipe', 'heartbeat', 'coordination', 'unavailable', 'deadline_exceeded',
        'another task died')


def allgather_strings(text: str) -> list[str]:
  """Returns the texts of all processes, in process order, on every process."""
  own = np.frombuffer(text.encode(), np.uint8)[:, None]
  lengths = parallel.gather_rows(np.array([[len(own)]])).ravel()
  together = parallel.gather_rows(own).tobytes()
  ends = np.cumsum(lengths)
  return [together[end - length:end].decode() for length, end in zip(lengths, ends)]


def checked_by_first(check: Callable[[], None]) -> None:
  """Runs a check in the first process; all must call this, and all raise its InputError."""
  problem = ''
  if parallel.is_first_process():
    try:
      check()
    except InputError as error:
      problem = str(error)
  problem = allgather_strings(problem)[0]
  if problem:
    raise InputError(problem)


@contextlib.contextmanager
def lock_workdir(workdir: epath.Path) -> Iterator[None]:
  """Locks a workdir against other jobs.

  The first process holds an operating system lock, which is released however the process
  ends. Object stores have no locks, so two jobs there are not detected.

  Raises:
    InputError: another job still holds the lock after PATIENCE seconds.
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
      parallel.print_once(
          f'{workdir} cannot be locked ({error.strerror}): a second job in it would not '
          'be detected')
      return
    if time.monotonic() >= deadline:
      raise InputError(f'{holder} runs in the workdir {workdir}. Let it end, or stop it, and run '
                       'the same command again; another run needs another --workdir.')
    if not said:
      parallel.print_once(
          f'{holder} runs in {workdir}; waiting up to {PATIENCE:.0f} s for it to end')
      said = True
    time.sleep(1)
  file.truncate(0)
  file.write(f'Process {os.getpid()} of {socket.gethostname()}')
  file.flush()


def check_shared(folder: epath.Path) -> None:
  """Raises InputError on all processes if one does not see the files that another writes.

  Such a run would train but could never be resumed: only one host would have checkpoints.
  """
  if jax.process_count() == 1:
    return
  token = allgather_strings(uuid.uuid4().hex)[0]
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
        f'The workdir {folder} is not shared: process {", ".join(map(str, blind))} cannot see '
        'what process 0 writes there. Give a folder in a shared file system, or a '
        'bucket (gs://...).')


def _appears(path: epath.Path) -> bool:
  deadline = time.monotonic() + VISIBLE
  while not path.exists():
    if time.monotonic() > deadline:
      return False
    time.sleep(.2 + random.random())
  return True


def is_peer_failure(error: BaseException) -> bool:
  """Whether an error says that another process of the job is gone."""
  if jax.process_count() == 1:
    return False
  while error is not None:
    text = str(error).lower()
    if any(sign in text for sign in LOST):
      return True
    error = error.__cause__ or error.__context__
  return False
