"""The grid of a fine-tuning: its points are trained one after another and stored when finished.

When a point has been evaluated, it is written to a file of JSON lines, with a digest of everything
that its score depends on. If the same evaluation is started again, it uses these scores and trains
only the remaining points; with another option, encoder or data set it is another point. Weights
are not kept on disk: if those of the chosen point are gone, it is trained again.
"""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import math
import time
from typing import Any, NamedTuple

from etils import epath

from byol_jax.distributed import parallel, processes
from byol_jax.errors import InputError

Point = Mapping[str, float]


class Grid(NamedTuple):
  """The store of the points of an evaluator's grid.

  name: name of the evaluator, for messages.
  path: the file, which the first process reads and writes.
  identity: JSON values that a score depends on, apart from the point: encoder, data, options.
  """

  name: str
  path: epath.Path
  identity: Mapping[str, Any]

  def having(self, **identity: Any) -> 'Grid':
    """The same store with more values in the identity."""
    return self._replace(identity={**self.identity, **identity})


class Candidate(NamedTuple):
  """A point that has been evaluated.

  point: values of the point by name.
  validation: fractions in [0, 1] by metric; None if the training has diverged.
  seconds: time for training and evaluating.
  """

  point: Point
  validation: Mapping[str, float] | None
  seconds: float


class Found(NamedTuple):
  """One candidate per point, the index of the best, and its weights if they were requested."""

  candidates: tuple[Candidate, ...]
  chosen: int
  weights: Any


def search(grid: Grid, points: Sequence[Point], train: Callable[..., Any], *,
           steps: Sequence[int], steps_after: int, metric: str, keep_weights: bool) -> Found:
  """Trains the unfinished points and chooses the best; of equal points, the first.

  Args:
    grid: the store of finished points.
    points: points of the grid, in the order in which they are trained.
    train: (point, timed) -> (validation scores, weights), both None if the training has
      diverged. Calls `timed`, unless it is None, with the seconds per step.
    steps: number of steps for each point.
    steps_after: number of steps that the caller does after the grid, for the sum and the estimate.
    metric: the validation score by which the best point is chosen.
    keep_weights: whether to return the weights of the best point; if they are gone, it is trained
      again.

  Raises:
    InputError: there are no points, or all have diverged.
  """
  if not points:
    raise InputError(f'The grid of {grid.name} has no points; give each of its options at least '
                     'one value.')
  done = _finished(grid, points)
  left = [index for index in range(len(points)) if index not in done]
  steps_left = sum(steps[index] for index in left) + steps_after
  parallel.print_once(f'{grid.name}: {len(points)} point{"s" * (len(points) > 1)}, '
                      f'{sum(steps) + steps_after} steps in all; {len(done)} already finished in '
                      f'{grid.path}, {steps_left} steps left')
  best, kept = None, None
  for index in left:
    timed = None if index != left[0] else lambda each: parallel.print_once(
        f'{grid.name}: {1000 * each:.3g} ms per step, about {_duration(each * steps_left)} for '
        f'{steps_left} steps, not counting the passes over the validation images')
    began = time.monotonic()
    validation, weights = train(points[index], timed)
    done[index] = Candidate(points[index], validation, round(time.monotonic() - began, 3))
    _append(grid, done[index])
    _say(grid, index, len(points), done[index], metric)
    if _chosen(done, metric) == index:
      best, kept = index, weights
  chosen = _chosen(done, metric)
  if chosen is None:
    raise InputError(_diverged(grid, points))
  if keep_weights and best != chosen:
    parallel.print_once(
        f'{grid.name}: the weights of the best point were not kept; training it once more '
        f'({steps[chosen]} steps)')
    kept = train(points[chosen], None)[1]
    if kept is None:
      raise InputError(f'{grid.name}: {dict(points[chosen])} diverged when it was trained '
                       f'once more; remove {grid.path} and start again.')
  return Found(tuple(done[index] for index in range(len(points))), chosen,
               kept if keep_weights else None)


def _chosen(done: Mapping[int, Candidate], metric: str) -> int | None:
  """The first index of the best score so far; None if all points have diverged."""
  scores = {index: done[index].validation[metric] for index in sorted(done)
            if done[index].validation is not None}
  return max(scores, key=scores.get) if scores else None


def _finished(grid: Grid, points: Sequence[Point]) -> dict[int, Candidate]:
  """The points in the file by their index; the result is the same on all processes."""
  text = _text(grid) if parallel.is_first_process() else ''
  records = {}
  for line in processes.allgather_strings(text)[0].splitlines():
    # A line that was cut off by an interruption is not a record.
    try:
      record = json.loads(line)
      records[record['key']] = record['validation'], record['seconds']
    except (ValueError, TypeError, KeyError):
      continue
  keys = [_key(grid, point) for point in points]
  return {index: Candidate(points[index], *records[key])
          for index, key in enumerate(keys) if key in records}


def _append(grid: Grid, candidate: Candidate) -> None:
  if not parallel.is_first_process():
    return
  grid.path.parent.mkdir(parents=True, exist_ok=True)
  text = _text(grid)
  record = dict(key=_key(grid, candidate.point), **candidate._asdict())
  with grid.path.open('a') as file:
    # Starts a new line after a line that was cut off, which would otherwise swallow this one.
    file.write(('\n' if text and not text.endswith('\n') else '') + json.dumps(record) + '\n')


def _text(grid: Grid) -> str:
  """The text of the file; damaged bytes stay unreadable without affecting the rest."""
  return grid.path.read_bytes().decode(errors='replace') if grid.path.exists() else ''


def _key(grid: Grid, point: Point) -> str:
  text = json.dumps(dict(identity=grid.identity, evaluator=grid.name, point=point),
                    sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _say(grid: Grid, index: int, count: int, candidate: Candidate, metric: str) -> None:
  point = ' '.join(f'{key}={value:.4g}' for key, value in candidate.point.items())
  score = ('diverged' if candidate.validation is None
           else f'{metric} {candidate.validation[metric]:.4f}')
  parallel.print_once(f'{grid.name}: point {index + 1}/{count}  {point}  {score}  '
                      f'{candidate.seconds:.1f} s')


def _diverged(grid: Grid, points: Sequence[Point]) -> str:
  rates = sorted({point['learning_rate'] for point in points})
  which, have = (f'All {len(points)} points', 'have') if len(points) > 1 else (
      'The only point', 'has')
  return (f'{which} of {grid.name} {have} diverged, with learning rates from {rates[0]:g} to '
          f'{rates[-1]:g} per 256 images; set evaluators.{grid.name}.'
          'learning_rates to smaller values.')


def _duration(seconds: float) -> str:
  for unit, size in (('days', 86400), ('h', 3600), ('min', 60)):
    if seconds >= 1.5 * size:
      return f'{seconds / size:.1f} {unit}'
  return f'{max(1, math.ceil(seconds))} s'
