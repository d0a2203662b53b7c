"""Requests to stop: SIGTERM and SIGUSR1 of schedulers, SIGINT of Ctrl-C, SIGHUP of a terminal.

The training notes the request and ends after a few steps, with a checkpoint. In a job
of several processes the request of any of them reaches all with the step's own
averages, so all stop after the same step. What has nothing to save ends at once.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys
import threading
import time

# EX_TEMPFAIL of sysexits.h: start the same command again, and it goes on.
EXIT_CODE = 75
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# Seconds in which a second signal is the same request: `timeout` sends it to the process and to
# its group.
ONE_REQUEST = .2


class Preempted(Exception):
  """What was asked to stop has saved what it had."""


def after_step(step: int, max_steps: int, number: int) -> Preempted:
  """The error of a run that was asked to stop by a signal; 0: by one to another process."""
  name = signal.Signals(number).name if number else 'a signal to another process'
  return Preempted(f'Stopped by {name} after step {step} of {max_steps}; a checkpoint is saved and '
                   'the same command goes on from it.')


def is_stop(code: int) -> bool:
  """Whether the code of a process, as `subprocess` gives it, says that it was asked to stop."""
  return code == EXIT_CODE or code in {sign * number + offset for number in SIGNALS
                                       for sign, offset in ((1, 128), (-1, 0))}


def leave(number: int) -> None:
  """Ends the process at once with a line and code 128 + number."""
  with contextlib.suppress(OSError, ValueError):
    os.write(sys.stderr.fileno(), f'Stopped by {signal.Signals(number).name}. Give the same '
             'command to start again.\n'.encode())
  os._exit(128 + number)


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], int]]:
  """Notes a request to stop within the context.

  The context gives a function that returns the number of the first signal, 0 while none came. A
  second SIGINT or SIGTERM ends the process at once, with code 128 + its number.
  """
  first: list[tuple[int, float]] = []

  def note(number):
    if not first:
      first.append((number, time.monotonic()))
      with contextlib.suppress(OSError):
        os.write(1, f'{signal.Signals(number).name}: the run saves a checkpoint and ends; a second '
                    'signal ends it at once, unsaved.\n'.encode())
    # A terminal that closes sends SIGHUP more than once, and nobody is there to repeat it.
    elif number != signal.SIGHUP and time.monotonic() - first[0][1] > ONE_REQUEST:
      leave(number)

  with handling(note):
    yield lambda: first[0][0] if first else 0


@contextlib.contextmanager
def handling(react: Callable[[int], None]) -> Iterator[None]:
  """Calls react(number) for each of SIGNALS within the context, in a thread of its own.

  A signal that the process ignores, as SIGHUP under nohup, stays ignored. Outside of the main
  thread, where Python allows no handler, nothing is noticed.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  # A handler in Python waits while the main thread is in XLA or in a collective, for
  # minutes if another process hangs. The pipe is written at once, and its thread reads.
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  terminals = [number for number in range(32) if os.isatty(number)]
  thread = threading.Thread(target=_read, args=(reader, react, terminals), daemon=True)
  thread.start()
  before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN}
  pipe = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  try:
    yield
  finally:
    signal.set_wakeup_fd(pipe)
    for number, handler in before.items():
      signal.signal(number, handler)
    os.close(writer)
    thread.join()
    os.close(reader)


def _read(reader: int, react: Callable[[int], None], terminals: list[int]) -> None:
  """Reads the numbers of the signals until the pipe is closed."""
  while number := os.read(reader, 1):
    if number[0] == signal.SIGHUP:
      _discard(terminals)
    if number[0] in SIGNALS:
      react(number[0])


def say(text: str) -> None:
  """Prints a line; one that nobody reads any more counts as SIGHUP where that is handled."""
  try:
    print(text, flush=True)
  except OSError:
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
      raise
    _discard([sys.stdout.fileno()])
    signal.raise_signal(signal.SIGHUP)


def _discard(numbers: list[int]) -> None:
  """Lets what is written to these files go nowhere: writing to a terminal that is gone fails."""
  nowhere = os.open(os.devnull, os.O_RDWR)
  for number in numbers:
    os.dup2(nowhere, number)
  os.close(nowhere)
