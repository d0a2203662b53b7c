"""Many runs of one config: its `get_hyper` -> points, run, resumed, collected.

A point is a pretraining and the evaluations that its config names. Its folder is
`<workdir>/points/<digest>`, and the digest is that of the config as far as it decides
the result: two sweeps in one workdir share the points that they have in common.
Everything that is known of a point lies in its folder, so that a sweep which is
killed goes on where it was when the same command is given again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import csv
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
import time
from typing import Any, NamedTuple

import ml_collections

from byol_jax import (
  assembly,
  config_checks,
  files,
  hyper,
  locations,
  metric_log,
  parallel,
  preemption,
  results,
)
from byol_jax.errors import InputError

LOG, FAILURE, LOCK, SECONDS = 'log.txt', 'failure.json', 'lock', 'seconds.json'
LAST_LINES = 5
SCALARS = ('train/byol_loss', 'train/top1', 'knn/top1', 'collapse/std',
           'collapse/effective_rank', 'time/images_per_second')


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
  with (point.folder / LOCK).open('w') as lock:
    if not _locked(lock):
      return 'running'
  return 'failed' if (point.folder / FAILURE).exists() else 'interrupted'


def run(found: Sequence[Point], *, slots: Sequence[Mapping[str, str]],
        progress: Callable[[], None]) -> list[Point]:
  """Runs what is not done, as many at once as there are slots.

  Args:
    found: the points.
    slots: environment variables of a run; says which devices it has.
    progress: called when a point begins or ends.

  Returns:
    The points that failed. They do not keep the others from running.

  Raises:
    Preempted: a signal asked to stop. The runs were told so, and have saved what they had.
  """
  free: queue.Queue = queue.Queue()
  for slot in slots:
    free.put(slot)
  running: set[subprocess.Popen] = set()
  asked: list[int] = []

  def one(point):
    slot = free.get()
    try:
      if not asked:
        _run_point(point, slot, running, asked, progress)
    finally:
      free.put(slot)

  def stop(number):
    asked.append(number)
    for process in list(running):
      process.terminate()

  todo = [point for point in found if state(point) != 'done']
  with preemption.handling(stop), ThreadPoolExecutor(len(slots)) as pool:
    try:
      list(pool.map(one, todo))
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      for process in list(running):
        process.terminate()
      raise
  if asked:
    done = sum(state(point) == 'done' for point in found)
    raise preemption.Preempted(f'Stopped by {signal.Signals(asked[0]).name} with {done} of '
                               f'{len(found)} points done; the same command goes on.')
  return [point for point in todo if state(point) == 'failed']


def _run_point(point: Point, slot: Mapping[str, str], running: set[subprocess.Popen],
               asked: Sequence[int], progress: Callable[[], None]) -> None:
  point.folder.mkdir(parents=True, exist_ok=True)
  # The children inherit the lock: a sweep that is killed does not leave a run behind
  # that the next sweep would start a second time.
  with (point.folder / LOCK).open('w') as lock:
    # A look at the state holds the lock for a moment.
    if not any(_locked(lock) or time.sleep(.05) for _ in range(20)):
      print(f'{point.digest}: another process is at it', flush=True)
      return
    (point.folder / FAILURE).unlink(missing_ok=True)
    print(f'{point.digest}: begins  {_named(point.overrides)}', flush=True)
    progress()
    for stage in point.stages:
      if not stage.result.exists() and (
          asked or not _run_stage(point, stage, slot, lock, running, asked)):
        break
    else:
      print(f'{point.digest}: done', flush=True)
  progress()


def _run_stage(point: Point, stage: Stage, slot: Mapping[str, str], lock, running, asked) -> bool:
  """Runs a command; on failure writes FAILURE with its last lines and prints them."""
  path, began = point.folder / LOG, time.time()
  with path.open('a') as log:
    start = log.tell()
    # In a process group of its own, out of the terminal's reach: Ctrl-C would come twice, from
    # the terminal and from the sweep, and a second one ends a run unsaved.
    process = subprocess.Popen(
        [sys.executable, *stage.arguments], stdout=log, stderr=subprocess.STDOUT,
        env={**os.environ, **slot}, pass_fds=[lock.fileno()], process_group=0)
    running.add(process)
    if asked:
      process.terminate()
    code = process.wait()
    running.discard(process)
  _note_seconds(point.folder, stage.name, time.time() - began)
  if code == 0:
    if not stage.result.exists():
      stage.result.write_text(json.dumps(dict(seconds=round(time.time() - began, 1))) + '\n')
    return True
  if preemption.is_stop(code):
    print(f'{point.digest}: {stage.name} was asked to stop; the next sweep goes on', flush=True)
    return False
  with path.open() as log:
    log.seek(start)
    last = log.read().splitlines()[-LAST_LINES:]
  (point.folder / FAILURE).write_text(json.dumps(dict(
      stage=stage.name, code=code, overrides=_listed(point.overrides), last_lines=last), indent=2))
  lines = '\n  '.join(last)
  print(f'{point.digest}: {stage.name} failed with code {code}  {_named(point.overrides)}\n  '
        f'{lines}\n  (log: {path})', flush=True)
  return False


def _note_seconds(folder: pathlib.Path, stage: str, seconds: float) -> None:
  """Adds what a stage took, or a part of it that ended early, to what it has taken before."""
  noted = seconds_of(folder)
  noted[stage] = round(noted.get(stage, 0.) + seconds, 1)
  (folder / SECONDS).write_text(json.dumps(noted) + '\n')


def seconds_of(folder: pathlib.Path) -> dict[str, float]:
  """{stage: seconds} of a point, all attempts but those that were killed with the sweep."""
  path = folder / SECONDS
  return json.loads(path.read_text()) if path.exists() else {}


def table(found: Sequence[Point]) -> list[dict[str, Any]]:
  """A row per point: state, overrides, last scalars, scores of the evaluations."""
  rows = []
  for point in found:
    row = dict(point=point.digest, state=state(point), **_listed(point.overrides))
    records = metric_log.read(point.folder) if point.folder.is_dir() else []
    row['step'] = records[-1]['step'] if records else 0
    for name in SCALARS:
      values = [record[name] for record in records if name in record]
      row[name] = values[-1] if values else None
    for stage in point.stages[1:]:
      if stage.result.exists():
        for encoder, scores in results.read(stage.result.parent)['encoders'].items():
          row |= {f'{encoder}/{evaluator}/top1': score['top1']
                  for evaluator, score in scores.items()}
    row['folder'] = str(point.folder)
    rows.append(row)
  return rows


def write_table(found: Sequence[Point], path: pathlib.Path) -> list[dict[str, Any]]:
  """Writes the table as .json and .csv beside each other; returns it."""
  rows = table(found)
  columns = list(dict.fromkeys(name for row in rows for name in row))
  path.parent.mkdir(parents=True, exist_ok=True)
  for suffix in ('.json', '.csv'):
    with files.atomic_write(path.with_suffix(suffix), newline='') as file:
      if suffix == '.json':
        json.dump(rows, file, indent=2)
      else:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
  return rows


def _locked(file) -> bool:
  """Whether the lock could be had."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _named(overrides: Mapping[str, Any]) -> str:
  return '  '.join(f'{key}={value}' for key, value in overrides.items())


def _listed(overrides: Mapping[str, Any]) -> dict[str, Any]:
  return json.loads(json.dumps(dict(overrides), default=list))
