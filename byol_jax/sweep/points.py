"""Many runs of one config: the points of its `get_hyper`, their folders, commands and states.

A point is a pretraining and the evaluations that its config names. Its folder is
`<workdir>/points/<digest>`. The digest covers the part of the config that decides
the result, so two sweeps in one workdir share the points that they have in common.
Everything about a point is stored in its folder, so a sweep that was killed
resumes when the same command is run again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shlex
import sys
from typing import Any, NamedTuple

import ml_collections

from byol_jax import build, files
from byol_jax.config import MAY_CHANGE, as_json, deciding, overridden
from byol_jax.errors import InputError
from byol_jax.evaluation import results
from byol_jax.input_pipeline import locations
from byol_jax.sweep import hyper

LOG, FAILURE, LOCK, SECONDS = 'log.txt', 'failure.json', 'lock', 'seconds.json'


class Stage(NamedTuple):
  """A command of a point.

  name: 'pretrain', or the name of an evaluation's config.
  arguments: command line of the Python interpreter.
  result: a file that exists when the stage is done.
  """

  name: str
  arguments: tuple[str, ...]
  result: pathlib.Path


class Point(NamedTuple):
  """One run of a sweep.

  overrides: the overrides that the sweep sets, such as {'seed': 1}.
  digest: digest of the resulting config.
  folder: the workdir of its pretraining.
  stages: its stages, in order.
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
    get_hyper: takes the module `hyper` and returns a list of points.
    config_path: the config file that defines both, with what follows its colon.
    overrides: overrides from the command line for all points, such as {'train.epochs': 2.}.
    workdir: workdir of the sweep.

  Raises:
    InputError: an override has a key that the config does not have, a point cannot be run, or
      there is no point.
  """
  workdir = files.local_path(workdir)
  found = {}
  for changes in hyper.checked(get_hyper(hyper), config_path):
    own = {key.removeprefix('config.'): value for key, value in changes.items()}
    everything = {**overrides, **own}
    config = _checked(overridden(get_config(), everything), own)
    digest = _digest(config, own)
    folder = workdir / 'points' / digest
    found.setdefault(digest, Point(own, digest, folder, _stages(
        config, config_path, everything, folder)))
  if not found:
    raise InputError(f'get_hyper of {config_path} returns no points.')
  return list(found.values())


def _checked(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
             ) -> ml_collections.ConfigDict:
  """The config of a point, checked as far as possible before the devices of its run are known."""
  try:
    build.check_pretraining(config, devices=1)
    build.check_data(config.data.to_dict())
    for path in config.evals.afterwards:
      _there(path)
  except InputError as error:
    raise InputError(f'The point {named(overrides) or "without overrides"} cannot be run: {error}'
                     ) from error
  return config


def _there(path: str) -> str:
  """Finds an evaluation's config file, relative to the current folder or to the clone.

  Raises:
    InputError: there is no such file.
  """
  file, colon, argument = path.partition(':')
  for folder in (pathlib.Path(), pathlib.Path(__file__).parents[2]):
    if (folder / file).is_file():
      return f'{folder / file}{colon}{argument}'
  raise InputError(f'evals.afterwards names {path}, but there is no such file.')


def _digest(config: ml_collections.ConfigDict, swept: Mapping[str, Any]) -> str:
  """The digest of the keys that decide the result; logging and the data's location do not.

  In a sweep over data locations, however, each location counts as different data.
  """
  everything = deciding(as_json(config))
  keys = locations.left_out(everything)
  keys |= {key: value for key, value in everything.items() if key in swept and key in keys}
  keys = {key: value for key, value in keys.items() if not key.startswith(MAY_CHANGE)}
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
      raise InputError(f'config.evals.afterwards has two configs that are called {name!r}, so '
                       'their results would share a folder; put one of them into a file of another '
                       'name.')
    stages.append(Stage(name, (
        '-m', 'experiments.evaluate', f'--config={_there(path)}', f'--checkpoint={folder}',
        f'--workdir={folder / name}', f'--config.seed={config.seed}',
        *[f'--config.data.locations={where}'] * bool(where)),
        folder / name / results.RESULTS))
  return tuple(stages)


def commands(found: Iterable[Point]) -> list[str]:
  """One shell command line per point, for other schedulers."""
  lines = []
  for point in found:
    parts = [shlex.join((sys.executable, *stage.arguments)) for stage in point.stages]
    parts.insert(1, shlex.join(('touch', str(point.stages[0].result))))
    lines.append(' && '.join(parts))
  return lines


def slurm_script(found: Sequence[Point]) -> str:
  """A script for sbatch: an array job with one task per point."""
  cases = '\n'.join(f'  {i}) {line} ;;' for i, line in enumerate(commands(found)))
  return (f'#!/bin/bash\n#SBATCH --job-name=byol_jax_sweep\n#SBATCH --array=0-{len(found) - 1}\n'
          '#SBATCH --output=slurm-%A_%a.log\n'
          '# Add what your cluster needs: --partition, --gres, --time.\n'
          f'set -e\ncd {shlex.quote(os.getcwd())}\ncase $SLURM_ARRAY_TASK_ID in\n{cases}\nesac\n')


def state(point: Point) -> str:
  """'done', 'running', 'failed', 'interrupted' or 'waiting'."""
  if all(stage.result.exists() for stage in point.stages):
    return 'done'
  if not point.folder.is_dir():
    return 'waiting'
  with contextlib.suppress(FileNotFoundError), (point.folder / LOCK).open() as lock:
    # A shared lock: two processes that look at the same time do not take each other for a run.
    if not locked(lock, fcntl.LOCK_SH):
      return 'running'
  return 'failed' if (point.folder / FAILURE).exists() else 'interrupted'


def seconds_of(folder: pathlib.Path) -> dict[str, float]:
  """{stage: seconds} of a point, over all attempts except those killed together with the sweep."""
  path = folder / SECONDS
  try:
    return json.loads(path.read_text()) if path.exists() else {}
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); remove it.') from error


def locked(file, kind: int) -> bool:
  """Tries to take a lock, fcntl.LOCK_EX or LOCK_SH; returns whether it succeeded."""
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def counted(found: Sequence[Point]) -> str:
  """'1 point', '3 points'."""
  return f'{len(found)} point{"s" * (len(found) != 1)}'


def named(overrides: Mapping[str, Any]) -> str:
  """The overrides as one line of text."""
  return '  '.join(f'{key}={value}' for key, value in overrides.items())


def listed(overrides: Mapping[str, Any]) -> dict[str, Any]:
  """The overrides as they read back from JSON: tuples become lists."""
  return json.loads(json.dumps(dict(overrides), default=list))
