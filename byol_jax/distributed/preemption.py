"""Stop requests: SIGTERM and SIGUSR1 from schedulers, SIGINT from Ctrl-C, SIGHUP from terminals.

Training notes the request and ends after a few steps, with a checkpoint. In a job
of several processes a request to any of them reaches all with the averages of the
step, so all stop after the same step. A process with nothing to save ends at once.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys
import threading
import time

# EX_TEMPFAIL of sysexits.h: run the same command again to resume.
EXIT_CODE = 75
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# A second signal within this many seconds is the same request: `timeout` signals the process and
# its group.
ONE_REQUEST = .2


class Preempted(Exception):
  """The process was asked to stop and has saved its work."""


def after_step(step: int, max_steps: int, number: int) -> Preempted:
  """The error of a run stopped by signal `number`; 0 means a signal to another process."""
  name = signal.Signals(number).name if number else 'a signal to another process'
  return Preempted(f'Stopped by {name} after step {step} of {max_steps}; a checkpoint is saved. '
                   'Run the same command to resume from it.')


def is_stop(code: int) -> bool:
  """Whether a return code from `subprocess` means that the process was asked to stop."""
  return code == EXIT_CODE or code in {sign * number + offset for number in SIGNALS
                                       for sign, offset in ((1, 128), (-1, 0))}


def leave(number: int) -> None:
  """Prints a line and ends the process at once with code 128 + number."""
  with contextlib.suppress(OSError, ValueError):
    os.write(sys.stderr.fileno(), f'Stopped by {signal.Signals(number).name}. Run the same '
             'command to start again.\n'.encode())
  os._exit(128 + number)


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], int]]:
  """Notes requests to stop within the context.

  Yields a function that returns the number of the first signal, or 0 if there was none. A
  second SIGINT or SIGTERM ends the process at once, with code 128 + its number.
  """
  first: list[tuple[int, float]] = []

  def note(number):
    if not first:
      first.append((number, time.monotonic()))
      with contextlib.suppress(OSError):
        os.write(1, f'{signal.Signals(number).name}: the run saves a checkpoint and ends; a second '
                    'signal ends it at once without saving.\n'.encode())
    # A closing terminal sends SIGHUP more than once, and no person can repeat it.
    elif number != signal.SIGHUP and time.monotonic() - first[0][1] > ONE_REQUEST:
      leave(number)

  with handling(note):
    yield lambda: first[0][0] if first else 0


@contextlib.contextmanager
def handling(react: Callable[[int], None]) -> Iterator[None]:
  """Calls react(number) for each of SIGNALS within the context, in a separate thread.

  A signal that the process ignores, such as SIGHUP under nohup, stays ignored. Outside the main
  thread Python allows no handlers, so signals are not noticed.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  # A Python handler has to wait while the main thread is in XLA or a collective, for
  # minutes if another process hangs. The pipe is written at once, and a thread reads it.
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
  """Reads signal numbers until the pipe is closed."""
  while number := os.read(reader, 1):
    if number[0] == signal.SIGHUP:
      _discard(terminals)
    if number[0] in SIGNALS:
      react(number[0])


def print_line(text: str) -> None:
  """Prints a line; if its reader is gone, this counts as SIGHUP where SIGHUP is handled."""
  try:
    print(text, flush=True)
  except OSError:
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
      raise
    _discard([sys.stdout.fileno()])
    signal.raise_signal(signal.SIGHUP)


def _discard(numbers: list[int]) -> None:
  """Discards all writes to these files, because writing to a terminal that is gone fails."""
  nowhere = os.open(os.devnull, os.O_RDWR)
  for number in numbers:
    os.dup2(nowhere, number)
  os.close(nowhere)
