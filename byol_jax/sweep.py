"""Many runs of one config: its `get_hyper` -> points, run, resumed, collected.

A point is a pretraining and the evaluations that its config names. Its folder is
`<workdir>/points/<digest>`, and the digest is that of the config as far as it decides
the result: two sweeps in one workdir share the points that they have in common.
Everything that is known of a point lies in its folder, so that a sweep which is
killed goes on where it was when the same command is given again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

import ml_collections

from byol_jax import (
  assembly,
  config_checks,
  files,
  hyper,
  locations,
  parallel,
  preemption,
  results,
)
from byol_jax.errors import InputError

LOG, FAILURE, LOCK, SECONDS = 'log.txt', 'failure.json', 'lock', 'seconds.json'
LAST_LINES = 5


class Stage(NamedTuple):
  """A command of a point.

  name: 'pretrain', or the name of an evaluation's config.
  arguments: of the Python interpreter.
  result: a file that exists when the stage is done.
  """

  name: str
  arguments: tuple[str, ...]
  result: pathlib.Path


class Point(NamedTuple):
  """One run of a sweep.

  overrides: the sweep's, {'seed': 1}.
  digest: of the config that results.
  folder: the workdir of its pretraining.
  stages: in their order.
  """

  overrides: dict[str, Any]
  digest: str
  folder: pathlib.Path
  stages: tuple[Stage, ...]


def points(get_config: Callable[[], ml_collections.ConfigDict], get_hyper: Callable[..., Any], *,
           config_path: str, overrides: Mapping[str, Any], workdir: str | pathlib.Path
           ) -> list[Point]:
  """The points of a sweep.

  Args:
    get_config: makes the config that the points change.
    get_hyper: of the config's file; takes the module `hyper`, gives a list of points.
    config_path: the file of both, with what follows its colon.
    overrides: of the command line, {'train.epochs': 2.}; they hold for all points.
    workdir: of the sweep.

  Raises:
    InputError: an override of a key that the config has not, a point that cannot be run, or no
      point.
  """
  workdir = parallel.local_path(workdir)
  found = {}
  for changes in hyper.checked(get_hyper(hyper), config_path):
    own = {key.removeprefix('config.'): value for key, value in changes.items()}
    everything = {**overrides, **own}
    config = _checked(assembly.overridden(get_config(), everything), own)
    digest = _digest(config, own)
    folder = workdir / 'points' / digest
    found.setdefault(digest, Point(own, digest, folder, _stages(
        config, config_path, everything, folder)))
  if not found:
    raise InputError(f'get_hyper of {config_path} gives no point.')
  return list(found.values())


def _checked(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
             ) -> ml_collections.ConfigDict:
  """The config of a point, if it can be run; the devices of its run are not known yet."""
  try:
    config_checks.check_pretraining(config, devices=1)
    config_checks.check_data(config.data.to_dict())
    for path in config.evals.afterwards:
      if not pathlib.Path(path.split(':')[0]).is_file():
        raise InputError(f'evals.afterwards names {path}, and there is no such file.')
  except InputError as error:
    raise InputError(f'The point {_named(overrides) or "without overrides"} cannot be run: {error}'
                     ) from error
  return config


def _digest(config: ml_collections.ConfigDict, swept: Mapping[str, Any]) -> str:
  """Of the keys that decide the result; logging and where the data lie do not.

  A sweep over places of data is one over data, however.
  """
  # Without keys that are as if they did not exist: the points of older sweeps stay theirs.
  everything = assembly.deciding(assembly.flat(assembly.as_json(config)))
  keys = locations.left_out(everything)
  keys |= {key: value for key, value in everything.items() if key in swept and key in keys}
  keys = {key: value for key, value in keys.items() if not key.startswith(assembly.MAY_CHANGE)
          and assembly.ADDED_LATER.get(key, ...) != value}
  return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:12]


def _stages(config, config_path: str, overrides: Mapping[str, Any], folder: pathlib.Path
            ) -> tuple[Stage, ...]:
  given = [f'--config.{key}={value if isinstance(value, str) else repr(value)}'
           for key, value in overrides.items()]
  stages = [Stage('pretrain', ('-m', 'experiments.pretrain', f'--config={config_path}', *given,
                               f'--workdir={folder}'), folder / 'finished.json')]
  where = locations.text(config.data.dataset, config.data.options)
  for path in config.evals.afterwards:
    name = pathlib.Path(path.split(':')[0]).stem
    if name in [stage.name for stage in stages]:
      raise InputError(f'config.evals.afterwards has two configs that are called {name!r}, whose '
                       'results would be in one folder; put one of them into a file of another '
                       'name.')
    stages.append(Stage(name, (
        '-m', 'experiments.evaluate', f'--config={path}', f'--checkpoint={folder}',
        f'--workdir={folder / name}', f'--config.seed={config.seed}',
        *[f'--config.data.locations={where}'] * bool(where)),
        folder / name / results.RESULTS))
  return tuple(stages)


def commands(found: Iterable[Point]) -> list[str]:
  """One line of shell per point, for other schedulers than ours."""
  lines = []
  for point in found:
    parts = [shlex.join((sys.executable, *stage.arguments)) for stage in point.stages]
    parts.insert(1, shlex.join(('touch', str(point.stages[0].result))))
    lines.append(' && '.join(parts))
  return lines


def slurm_script(found: Sequence[Point]) -> str:
  """An array job with a task per point; to be given to sbatch."""
  cases = '\n'.join(f'  {i}) {line} ;;' for i, line in enumerate(commands(found)))
  return (f'#!/bin/bash\n#SBATCH --job-name=byol_jax_sweep\n#SBATCH --array=0-{len(found) - 1}\n'
          '#SBATCH --output=slurm-%A_%a.log\n'
          '# Add what your cluster wants: --partition, --gres, --time.\n'
          f'set -e\ncd {shlex.quote(os.getcwd())}\ncase $SLURM_ARRAY_TASK_ID in\n{cases}\nesac\n')


def state(point: Point) -> str:
  """'done', 'running', 'failed', 'interrupted' or 'waiting'."""
  if all(stage.result.exists() for stage in point.stages):
    return 'done'
  if not point.folder.is_dir():
    return 'waiting'
  with contextlib.suppress(FileNotFoundError), (point.folder / LOCK).open() as lock:
    # Shared: of two that look at the same time neither takes the other for a run.
    if not _locked(lock, fcntl.LOCK_SH):
      return 'running'
  return 'failed' if (point.folder / FAILURE).exists() else 'interrupted'


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
    Preempted: a signal asked to stop. The runs were told so, and have saved what they had.
  """
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

  todo = [point for point in found if state(point) != 'done']
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
                               f'{len(found)} points done; the same command goes on.')
  return [point for point, well in zip(todo, went_well) if not well]


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
    if not any(_locked(lock, fcntl.LOCK_EX) or time.sleep(.05) for _ in range(20)):
      print(f'{point.digest}: another process is at it', flush=True)
      return
    (point.folder / FAILURE).unlink(missing_ok=True)
    print(f'{point.digest}: begins  {_named(point.overrides)}', flush=True)
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
  print(f'{point.digest}: {stage.name} failed with code {code}  {_named(point.overrides)}\n  '
        f'{lines}\n  (log: {path})', flush=True)
  return False


def _note_seconds(folder: pathlib.Path, stage: str, seconds: float) -> None:
  """Adds what a stage took, or a part of it that ended early, to what it has taken before."""
  noted = seconds_of(folder)
  noted[stage] = round(noted.get(stage, 0.) + seconds, 1)
  with files.atomic_write(folder / SECONDS) as file:
    file.write(json.dumps(noted) + '\n')


def seconds_of(folder: pathlib.Path) -> dict[str, float]:
  """{stage: seconds} of a point, all attempts but those that were killed with the sweep."""
  path = folder / SECONDS
  try:
    return json.loads(path.read_text()) if path.exists() else {}
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); remove it.') from error


def _locked(file, kind: int) -> bool:
  """Whether the lock, fcntl.LOCK_EX or LOCK_SH, is free and now taken."""
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _named(overrides: Mapping[str, Any]) -> str:
  return '  '.join(f'{key}={value}' for key, value in overrides.items())


def listed(overrides: Mapping[str, Any]) -> dict[str, Any]:
  """Overrides as JSON gives them back: tuples become lists."""
  return json.loads(json.dumps(dict(overrides), default=list))
