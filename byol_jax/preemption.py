"""A request to stop, SIGTERM: schedulers send it, and machines that are taken away.

The training notes the request and ends after a few steps, with a checkpoint. In a job
of several processes the request of any of them reaches all with the step's own
averages, so all stop after the same step.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import threading

# EX_TEMPFAIL of sysexits.h: start the same command again, and it goes on.
EXIT_CODE = 75


class Preempted(Exception):
  """The run was asked to stop and has saved its last step."""

  def __init__(self, step: int, max_steps: int):
    super().__init__(f'Stopped by SIGTERM after step {step} of {max_steps}; a checkpoint is saved '
                     'and the same command goes on from it.')


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], bool]]:
  """Notes SIGTERM within the context, which gives a function that says whether one came.

  A second one ends the process at once, with code 128 + 15. Outside of the main
  thread, where Python allows no handler, nothing is noted.
  """
  came = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield came.is_set
    return
  # A handler in Python waits while the main thread is in XLA or in a collective, for
  # minutes if another process hangs. The pipe is written at once, and its thread reads.
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  thread = threading.Thread(target=_note, args=(reader, came), daemon=True)
  thread.start()
  handler = signal.signal(signal.SIGTERM, lambda *_: None)
  pipe = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  try:
    yield came.is_set
  finally:
    signal.set_wakeup_fd(pipe)
    signal.signal(signal.SIGTERM, handler)
    os.close(writer)
    thread.join()
    os.close(reader)


def _note(reader: int, came: threading.Event) -> None:
  """Reads the numbers of the signals until the pipe is closed."""
  while number := os.read(reader, 1):
    if number[0] != signal.SIGTERM:
      continue
    if came.is_set():
      os._exit(128 + signal.SIGTERM)
    came.set()
