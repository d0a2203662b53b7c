"""Reads the folders of runs for a report."""

from collections.abc import Collection, Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from byol_jax import checkpoint, files, metric_log
from byol_jax.errors import InputError
from byol_jax.evaluation import results
from byol_jax.sweep import points as sweep


class Run(NamedTuple):
  """A pretraining run, as read from its folder.

  name: the name shown to the reader; unique among the runs.
  folder: its workdir.
  config: the config that the run saved; empty if it failed before that.
  resolved: the resolved values that the run saved; empty if it failed before that.
  records: the records of metrics.jsonl.
  checkpoints: the steps of its checkpoints.
  damaged: {step: what is wrong} of the damaged checkpoints.
  evaluations: (folder, results) of the evaluations in subfolders.
  failure: the failure that a sweep recorded; None if there is none.
  problems: sentences about files that could not be read.
  """

  name: str
  folder: pathlib.Path
  config: Mapping[str, Any]
  resolved: Mapping[str, Any]
  records: list[dict[str, float]]
  checkpoints: list[int]
  damaged: Mapping[int, str]
  evaluations: list[tuple[pathlib.Path, dict[str, Any]]]
  failure: Mapping[str, Any] | None
  problems: list[str]

  @property
  def step(self) -> int:
    """The last known step."""
    return max([record['step'] for record in self.records] + self.checkpoints, default=0)

  @property
  def state(self) -> str:
    """'finished', 'failed', 'unfinished' or 'not started'."""
    if self.failure:
      return 'failed'
    if not self.config:
      return 'not started'
    return 'finished' if self.resolved['max_steps'] in self.checkpoints else 'unfinished'

  def series(self, metric: str) -> tuple[list[int], list[float]]:
    """The steps and values of a metric."""
    points = [(r['step'], r[metric]) for r in self.records
              if isinstance(r.get(metric), int | float)]
    return [step for step, _ in points], [value for _, value in points]

  def spectra(self) -> list[tuple[int, list[float]]]:
    """The step and the spectrum of held-out embeddings of each evaluation."""
    return [(record['step'], values) for record in self.records
            if isinstance(values := record.get('embeddings/spectrum'), list)]

  def last(self, metric: str) -> float | None:
    """The last value of a metric; None if it was never logged."""
    values = self.series(metric)[1]
    return values[-1] if values else None


def read(paths: Sequence[str | pathlib.Path]) -> list[Run]:
  """Reads the runs in the given folders.

  Args:
    paths: workdirs of pretraining runs and of sweeps.

  Raises:
    InputError: there is no path, a path is neither of these, or a folder is given twice.
  """
  if not paths:
    raise InputError('Give the workdir of a run or of a sweep, or several.')
  folders = []
  for path in map(files.local_path, paths):
    folders += _folders(path.resolve())
  if len(set(folders)) < len(folders):
    twice = next(folder for folder in folders if folders.count(folder) > 1)
    raise InputError(f'{twice} is given twice.')
  return [_read(folder, name) for folder, name in zip(folders, _names(folders))]


def _folders(path: pathlib.Path) -> list[pathlib.Path]:
  """The workdirs below a path: itself, or the points of a sweep."""
  if (path / 'config.json').is_file():
    return [path]
  points = [path / 'points' / name for name in _listed(path)]
  points += sorted(point for point in (path / 'points').glob('*')
                   if point.is_dir() and point not in points)
  if points:
    return points
  exists = 'is not a folder' if not path.is_dir() else 'has neither config.json nor points/'
  raise InputError(f'{path} {exists}; give the --workdir of a pretraining run or of a sweep.')


def _listed(path: pathlib.Path) -> list[str]:
  """The points in the tables of a sweep's workdir, including waiting ones."""
  names = {}
  for table in sorted(path.glob('*.json')):
    rows = _json(table, [])
    if isinstance(rows, list):
      names |= {row['point']: None for row in rows
                if isinstance(row, dict) and isinstance(row.get('point'), str)}
  return list(names)


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
  """The shortest endings of the paths that are unique."""
  for count in range(1, 20):
    names = ['/'.join(folder.parts[-count:]) for folder in folders]
    if len(set(names)) == len(names):
      break
  return names


def _read(folder: pathlib.Path, name: str) -> Run:
  problems = []
  config = _json(folder / 'config.json', problems, {'config', 'resolved'}) or {}
  failure = _json(folder / sweep.FAILURE, problems, {'stage', 'code', 'last_lines'})
  evaluations = []
  for path in sorted(folder.rglob(results.RESULTS)):
    found = _json(path, problems)
    if found is None:
      continue
    try:
      what = results.lacks(found)
    except InputError as error:
      # Results of an evaluator that is not available here.
      problems.append(f'{path} cannot be used: {error}')
      continue
    if what:
      problems.append(f'{path} is damaged: {what}.')
    else:
      evaluations.append((path.parent, found))
  steps = checkpoint.steps(folder)
  damaged = {step: what for step in steps if (what := checkpoint.verify(folder, step))}
  return Run(name, folder, config.get('config', {}), config.get('resolved', {}),
             metric_log.read(folder), steps, damaged, evaluations, failure, problems)


def _json(path: pathlib.Path, problems: list[str], keys: Collection[str] = ()) -> Any:
  """The value of a JSON file; None if it is damaged or not a dict with the given `keys`."""
  if not path.is_file():
    return None
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    problems.append(f'{path} is damaged ({error}).')
    return None
  missing = sorted(set(keys) - set(value)) if isinstance(value, dict) else sorted(keys)
  if missing:
    problems.append(f'{path} is damaged: it has no {missing[0]!r}.')
    return None
  return value
