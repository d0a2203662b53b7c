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

  def note(*_):
    if came.is_set():
      os._exit(128 + signal.SIGTERM)
    came.set()

  if threading.current_thread() is not threading.main_thread():
    yield came.is_set
    return
  before = signal.signal(signal.SIGTERM, note)
  try:
    yield came.is_set
  finally:
    signal.signal(signal.SIGTERM, before)
