"""Runs the points of a sweep, several at once, and resumes interrupted ones."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import fcntl
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

from byol_jax import files
from byol_jax.distributed import preemption
from byol_jax.errors import InputError
from byol_jax.sweep.points import (
  FAILURE,
  LOCK,
  LOG,
  SECONDS,
  Point,
  Stage,
  counted,
  listed,
  locked,
  named,
  seconds_of,
  state,
)

LAST_LINES = 5
# The code of a process that checks for the devices of the runs.
LOOK = """
import sys
from byol_jax import errors
from byol_jax.distributed import devices
try:
  devices.check_platforms()
except errors.InputError as error:
  print(error)
  sys.exit(1)
"""


def run(found: Sequence[Point], *, slots: Sequence[Mapping[str, str]],
        progress: Callable[[], None]) -> list[Point]:
  """Runs the points that are not done, as many at once as there are slots.

  Args:
    found: the points.
    slots: environment variables of a run, which set its devices.
    progress: called when a point starts or ends, never concurrently. Its errors are
      printed, and the runs continue.

  Returns:
    The points that failed. They do not stop the others.

  Raises:
    InputError: the runs would not find their devices.
    Preempted: a signal asked the sweep to stop. It was passed to the runs, which saved their work.
  """
  todo = [point for point in found if state(point) != 'done']
  if todo:
    _check_devices(slots[0])
  free: queue.Queue = queue.Queue()
  for slot in slots:
    free.put(slot)
  runs = _Runs(set(), [], threading.Lock(), progress)

  def one(point) -> bool:
    slot = free.get()
    try:
      if not runs.asked:
        _run_point(point, slot, runs)
      return state(point) != 'failed'
    except (OSError, InputError) as error:
      # A problem with its folder, such as a full disk; the other points may have room.
      print(f'{point.digest}: failed: {error}', flush=True)
      return False
    finally:
      free.put(slot)

  def stop(number):
    runs.asked.append(number)
    for process in list(runs.processes):
      process.terminate()

  with preemption.handling(stop), ThreadPoolExecutor(len(slots)) as pool:
    try:
      went_well = list(pool.map(one, todo))
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      runs.asked.append(signal.SIGTERM)
      for process in list(runs.processes):
        process.terminate()
      raise
  if runs.asked:
    done = sum(state(point) == 'done' for point in found)
    raise preemption.Preempted(f'Stopped by {signal.Signals(runs.asked[0]).name} with {done} of '
                               f'{counted(found)} done; run the same command to resume.')
  return [point for point, well in zip(todo, went_well) if not well]


def _check_devices(slot: Mapping[str, str]) -> None:
  """Raises InputError if no run would find the devices that JAX_PLATFORMS asks for."""
  if os.environ.get('JAX_PLATFORMS', 'cpu') in ('', 'cpu'):
    return
  # In a separate process, because this one would take the devices away from the runs.
  done = subprocess.run([sys.executable, '-c', LOOK], env={**os.environ, **slot},
                        capture_output=True, text=True, check=False)
  # The runs themselves report any other problem better.
  if done.returncode and done.stdout.strip():
    raise InputError(done.stdout.strip())


class _Runs(NamedTuple):
  """The state shared by the threads of `run`.

  processes: the processes of the running stages.
  asked: signals that asked the sweep to stop; after the first one no new stage starts.
  reporting: a lock held while `progress` is called.
  progress: the argument of `run`.
  """

  processes: set[subprocess.Popen]
  asked: list[int]
  reporting: threading.Lock
  progress: Callable[[], None]

  def report(self) -> None:
    """Calls `progress`; only warns about its errors, which appear again at the end of the sweep."""
    try:
      with self.reporting:
        self.progress()
    except Exception as error:
      print(f'WARNING the table of the sweep was not written ({type(error).__name__}: {error}); '
            'the runs continue', flush=True)


def _run_point(point: Point, slot: Mapping[str, str], runs: _Runs) -> None:
  point.folder.mkdir(parents=True, exist_ok=True)
  # The children inherit the lock, so if the sweep is killed while a run goes on, the next
  # sweep does not start that run a second time.
  with (point.folder / LOCK).open('w') as lock:
    # Reading the state of a point holds the lock for a moment.
    if not any(locked(lock, fcntl.LOCK_EX) or time.sleep(.05) for _ in range(20)):
      print(f'{point.digest}: another process is running it', flush=True)
      return
    (point.folder / FAILURE).unlink(missing_ok=True)
    print(f'{point.digest}: starts  {named(point.overrides)}', flush=True)
    runs.report()
    for stage in point.stages:
      if not stage.result.exists() and (
          runs.asked or not _run_stage(point, stage, slot, lock, runs)):
        break
    else:
      print(f'{point.digest}: done', flush=True)
  runs.report()


def _run_stage(point: Point, stage: Stage, slot: Mapping[str, str], lock, runs: _Runs) -> bool:
  """Runs a command; on failure writes FAILURE with its last lines and prints them."""
  path, began = point.folder / LOG, time.time()
  with path.open('a') as log:
    start = log.tell()
    # In its own process group, which the terminal does not signal: Ctrl-C would arrive twice, from
    # the terminal and from the sweep, and the second one ends a run without saving.
    process = subprocess.Popen(
        [sys.executable, *stage.arguments], stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, **slot}, pass_fds=[lock.fileno()], process_group=0)
    runs.processes.add(process)
    if runs.asked:
      process.terminate()
    code = process.wait()
    runs.processes.discard(process)
  _note_seconds(point.folder, stage.name, time.time() - began)
  if code == 0:
    if not stage.result.exists():
      with files.atomic_write(stage.result) as file:
        file.write(json.dumps(dict(seconds=round(time.time() - began, 1))) + '\n')
    return True
  if preemption.is_stop(code):
    print(f'{point.digest}: {stage.name} was asked to stop; the next sweep resumes it', flush=True)
    return False
  with path.open(errors='replace') as log:
    log.seek(start)
    last = log.read().splitlines()[-LAST_LINES:]
  with files.atomic_write(point.folder / FAILURE) as file:
    json.dump(dict(stage=stage.name, code=code, overrides=listed(point.overrides),
                   last_lines=last), file, indent=2)
  lines = '\n  '.join(last)
  print(f'{point.digest}: {stage.name} failed with code {code}  {named(point.overrides)}\n  '
        f'{lines}\n  (log: {path})', flush=True)
  return False


def _note_seconds(folder: pathlib.Path, stage: str, seconds: float) -> None:
  """Adds the time of a stage, even if it ended early, to the time of its earlier attempts."""
  noted = seconds_of(folder)
  noted[stage] = round(noted.get(stage, 0.) + seconds, 1)
  with files.atomic_write(folder / SECONDS) as file:
    file.write(json.dumps(noted) + '\n')
