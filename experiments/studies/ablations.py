"""Compares a sweep over the rows of a table of the paper with the published numbers.

`collect` reads the runs. `text` makes a section from its result alone, so that a test can
remake the section from the JSON file beside the page.
"""

from collections.abc import Mapping, Sequence
import datetime
import importlib.resources
import itertools
import json
import math
import pathlib
from typing import Any, NamedTuple

import jinja2
import numpy as np

from byol_jax import files
from byol_jax.errors import InputError
from byol_jax.plots import titles
from byol_jax.plots.tables import Table, markdown, mean_and_spread
from byol_jax.report import diagnosis, runs
from byol_jax.sweep import points as sweep
from experiments.studies.scaling import record

# The evaluators whose top-1 represents the paper's linear evaluation: the first that a run has.
EVALUATORS = ('linear', 'linear_features')
# Pairs of rows count as equal if their means differ by less than this many standard errors of
# the difference.
STANDARD_ERRORS = 2.
# The last numbers of a training run: the metric, its factor, the number of digits.
LAST = dict(loss=('train/byol_loss', 1, 4), spread=('collapse/std', 1, 4),
            rank=('collapse/effective_rank', 1, 4), held_out=('knn/top1', 100, 2))
# In a page with other text, the section begins after this line.
BEGIN = '<!-- What follows is written by experiments.ablations. -->'

Record = Mapping[str, Any]


class Pair(NamedTuple):
  """Two rows, the one with the higher published number first.

  higher: name of the row with the higher published number.
  lower: name of the other row.
  difference: difference of the measured means, in points; negative if the order is reversed.
  clear: whether it is more than STANDARD_ERRORS standard errors.
  """

  higher: str
  lower: str
  difference: float
  clear: bool


def collect(title: str, config_path: str,
            rows: Mapping[str, tuple[str, Sequence[sweep.Point]]]) -> Record:
  """Collects the results of the runs of a table's rows, as plain values for a JSON file.

  Args:
    title: title of the section.
    config_path: config file of the sweep.
    rows: {name: (published number, points of the row, one per seed)}; the first is the baseline.
      Points that failed are counted, because divergence is a result.

  Raises:
    InputError: a point is not done, no run of the baseline succeeded, or a run was not evaluated
      by one of EVALUATORS.
  """
  points = [point for _, found in rows.values() for point in found]
  undone = [point for point in points if sweep.state(point) not in ('done', 'failed')]
  if undone:
    raise InputError(f'{len(undone)} of {len(points)} points are not done, {undone[0].folder} '
                     f'among them: python -m experiments.sweep --config={config_path} with the '
                     'same --workdir resumes them.')
  done = {name: [point for point in own if sweep.state(point) == 'done']
          for name, (_, own) in rows.items()}
  if not next(iter(done.values())):
    raise InputError(f'All points of the baseline, {next(iter(rows))!r}, have failed: '
                     f'{points[0].folder}.')
  # At some scales two rows are the same points.
  folders = list(dict.fromkeys(point.folder for own in done.values() for point in own))
  found = dict(zip(folders, runs.read(folders)))
  first = found[folders[0]]
  evaluation, evaluator = _evaluation(first)
  return dict(
      title=title, config=config_path, date=datetime.date.today().isoformat(),
      machine=record.machine(), data=evaluation['dataset'], images=evaluation['images'],
      test_split_reads=max(each['test_split_reads'] for run in found.values()
                           for _, each in run.evaluations),
      evaluator=evaluator, steps=first.resolved['max_steps'],
      **{key: first.config['train'][key] for key in ('epochs', 'batch_size')},
      rows=[dict(name=name, published=published, failed=len(own) - len(done[name]),
                 runs=[_numbers(found[point.folder]) for point in done[name]])
            for name, (published, own) in rows.items()])


def _evaluation(run: runs.Run) -> tuple[Mapping[str, Any], str]:
  """The results of the first of EVALUATORS that evaluated a run, and its name."""
  known = {name: found for _, found in reversed(run.evaluations)
           for name in next(iter(found['encoders'].values()))}
  for name in EVALUATORS:
    if name in known:
      return known[name], name
  raise InputError(f'{run.folder} was evaluated by {", ".join(known) or "no evaluator"}; the table '
                   f'needs {" or ".join(EVALUATORS)} (evals.afterwards).')


def _numbers(run: runs.Run) -> dict[str, Any]:
  """Scores in percent, and the last numbers of the training; None for numbers not logged."""
  evaluation, name = _evaluation(run)
  scores = {encoder: round(100 * row[name][main], 2)
            for encoder, row in evaluation['encoders'].items()
            for main in titles.main_metrics(name, row[name])}
  last = {key: None if (value := run.last(metric)) is None else round(factor * value, digits)
          for key, (metric, factor, digits) in LAST.items()}
  collapsed = diagnosis.has_collapsed(run)
  return dict(seed=run.config['seed'], **scores, **last,
              collapsed=None if collapsed is None else bool(collapsed),
              seconds=sweep.seconds_of(run.folder))


def table(found: Record) -> Table:
  """For each row, published and measured top-1 with their ranks, and signs of collapse."""
  rows, published = found['rows'], [_number(row['published']) for row in found['rows']]
  scores = [_scores(row) for row in rows]
  # What failed ranks below all else.
  ranks = [_ranks(published), _ranks([np.mean(values) if values else -1. for values in scores])]
  cells = []
  for i, row in enumerate(rows):
    shown = lambda key, show=mean_and_spread, runs=row['runs']: (
        '-' if not runs or any(run[key] is None for run in runs)
        else show([run[key] for run in runs]))
    failed = f" ({row['failed']} of {row['failed'] + len(scores[i])} failed)" * bool(row['failed'])
    cells.append([row['name'] + failed, row['published'], str(ranks[0][i]), shown('pretrained'),
                  str(ranks[1][i]), shown('held_out'),
                  shown('spread', lambda values: mean_and_spread(values, 2)), shown('rank'),
                  shown('collapsed', lambda values: f'{sum(values)} of {len(values)}')])
  return Table(['row', 'published: ImageNet', 'rank',
                f'measured: {titles.title(found["evaluator"])}', 'rank', 'held-out kNN',
                'spread of projections', 'effective rank', 'called collapsed'], cells, [])


def pairs(found: Record) -> list[Pair]:
  """All pairs of rows with different published numbers, and their measured difference.

  A pair is only clear if each row has two runs; rows without a successful run are left out.
  """
  result = []
  for one, other in itertools.combinations(filter(_scores, found['rows']), 2):
    higher, lower = sorted((one, other), key=lambda row: -_number(row['published']))
    if _number(higher['published']) == _number(lower['published']):
      continue
    first, second = _scores(higher), _scores(lower)
    difference = float(np.mean(first) - np.mean(second))
    error = (math.sqrt(sum(np.var(s, ddof=1) / len(s) for s in (first, second)))
             if min(len(first), len(second)) > 1 else math.inf)
    result.append(Pair(higher['name'], lower['name'], difference,
                       abs(difference) > STANDARD_ERRORS * error))
  return result


def _scores(row: Mapping[str, Any]) -> list[float]:
  return [run['pretrained'] for run in row['runs']]


def _number(published: str) -> float:
  return float(published.split()[0])


def _ranks(values: Sequence[float]) -> list[int]:
  return [1 + sum(other > value for other in values) for value in values]


def text(found: Record, output: pathlib.PurePath, why: Mapping[str, str]) -> str:
  """The section, as Markdown.

  Args:
    found: from `collect`.
    output: the page of the section.
    why: {name of a row: why its rank may differ from the paper's}.
  """
  compared = pairs(found)
  wrong = [pair for pair in compared if pair.clear and pair.difference < 0]
  baseline = found['rows'][0]
  random = [run['random'] for run in baseline['runs'] if 'random' in run]
  everything = [run for row in found['rows'] for run in row['runs']]
  template = (importlib.resources.files('experiments.studies') / 'ablations.md').read_text()
  environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True,
                                   lstrip_blocks=True, keep_trailing_newline=True)
  return environment.from_string(template).render(
      found, page=output.stem, output=output, table=markdown(table(found)), pairs=compared,
      wrong=wrong,
      right=[pair for pair in compared if pair.clear and pair.difference > 0],
      unclear=[pair for pair in compared if not pair.clear], standard_errors=STANDARD_ERRORS,
      column=titles.title(found['evaluator']),
      why=why,
      seeds=sorted({run['seed'] for run in everything}), count=len(everything),
      random=mean_and_spread(random) if random else '',
      gain=f'{np.mean(_scores(baseline)) - np.mean(random):.1f}' if random else '',
      each={stage: sum(run['seconds'].get(stage, 0.) for run in everything) / len(everything)
            for stage in everything[0]['seconds']},
      minutes=sum(sum(run['seconds'].values()) for run in everything) / 60)


def write(output: str | pathlib.Path, found: Record, why: Mapping[str, str]) -> None:
  """Writes the section, and its data as JSON beside the page.

  A page that has the line BEGIN keeps what is above it.
  """
  output = pathlib.Path(output)
  output.parent.mkdir(parents=True, exist_ok=True)
  above, begin, _ = output.read_text().partition(BEGIN) if output.exists() else ('', '', '')
  for path, content in (
      (output.with_suffix('.json'), json.dumps(found, indent=1) + '\n'),
      (output, (above + begin + '\n' if begin else '') + text(found, output, why))):
    with files.atomic_write(path) as file:
      file.write(content)
