"""Runs the points of a sweep, several at once, each resumed where it was."""

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
# What a process does that looks for the devices of the runs.
LOOK = """
import sys
from byol_jax import devices, errors
try:
  devices.check_platforms()
except errors.InputError as error:
  print(error)
  sys.exit(1)
"""


def run(found: Sequence[Point], *, slots: Sequence[Mapping[str, str]],
        progress: Callable[[], None]) -> list[Point]:
  """Runs what is not done, as many at once as there are slots.

  Args:
    found: the points.
    slots: environment variables of a run; says which devices it has.
    progress: called when a point begins or ends, never twice at once. What it raises is
      printed, and the runs go on.

  Returns:
    The points that failed. They do not keep the others from running.

  Raises:
    InputError: the runs would not find the devices that they are to have.
    Preempted: a signal asked to stop. The runs were told so, and have saved what they had.
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
      # Of its folder, such as a full disk; the other points may have room.
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
                               f'{counted(found)} done; the same command goes on.')
  return [point for point, well in zip(todo, went_well) if not well]


def _check_devices(slot: Mapping[str, str]) -> None:
  """Raises InputError where no run would find the devices that JAX_PLATFORMS asks for."""
  if os.environ.get('JAX_PLATFORMS', 'cpu') in ('', 'cpu'):
    return
  # In a process of its own: this one would keep the devices from the runs.
  done = subprocess.run([sys.executable, '-c', LOOK], env={**os.environ, **slot},
                        capture_output=True, text=True, check=False)
  # Whatever else ends it, the runs say it better.
  if done.returncode and done.stdout.strip():
    raise InputError(done.stdout.strip())


class _Runs(NamedTuple):
  """What the threads of `run` share.

  processes: of the stages that run.
  asked: signals that asked the sweep to stop; after the first no other stage begins.
  reporting: held while `progress` is called.
  progress: of `run`.
  """

  processes: set[subprocess.Popen]
  asked: list[int]
  reporting: threading.Lock
  progress: Callable[[], None]

  def report(self) -> None:
    """Calls `progress`; whoever runs the sweep sees again at its end what it cannot do."""
    try:
      with self.reporting:
        self.progress()
    except Exception as error:
      print(f'WARNING the table of the sweep was not written ({type(error).__name__}: {error}); '
            'the runs go on', flush=True)


def _run_point(point: Point, slot: Mapping[str, str], runs: _Runs) -> None:
  point.folder.mkdir(parents=True, exist_ok=True)
  # The children inherit the lock: a sweep that is killed does not leave a run behind
  # that the next sweep would start a second time.
  with (point.folder / LOCK).open('w') as lock:
    # A look at the state holds the lock for a moment.
    if not any(locked(lock, fcntl.LOCK_EX) or time.sleep(.05) for _ in range(20)):
      print(f'{point.digest}: another process is at it', flush=True)
      return
    (point.folder / FAILURE).unlink(missing_ok=True)
    print(f'{point.digest}: begins  {named(point.overrides)}', flush=True)
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
    # In a process group of its own, out of the terminal's reach: Ctrl-C would come twice, from
    # the terminal and from the sweep, and a second one ends a run unsaved.
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
    print(f'{point.digest}: {stage.name} was asked to stop; the next sweep goes on', flush=True)
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
  """Adds what a stage took, or a part of it that ended early, to what it has taken before."""
  noted = seconds_of(folder)
  noted[stage] = round(noted.get(stage, 0.) + seconds, 1)
  with files.atomic_write(folder / SECONDS) as file:
    file.write(json.dumps(noted) + '\n')
