"""Tables of scores and of sweeps, as Markdown."""

from collections.abc import Mapping, Sequence
import re
from typing import Any, NamedTuple

import numpy as np

from byol_jax.report import published

NAMES = dict(pretrained='BYOL, frozen', random='random encoder', pixels='raw pixels',
             supervised='supervised')
COLUMNS = dict(linear='linear (C.1)', linear_features='linear on features', knn='kNN',
               knn_grid='kNN, chosen', few_shot='few-shot', linear_transfer='linear (D.2)',
               semi_supervised='fine-tuned (C.1)', fine_tuned_transfer='fine-tuned (D.3)',
               retrieval='retrieval')
# Evaluators whose top-5 stands in the table too; results.json has all.
WITH_TOP5 = ('linear', 'semi_supervised')
# Evaluators after which an encoder is frozen no more.
FINE_TUNED = ('semi_supervised', 'fine_tuned_transfer')
# Evaluators whose last fit is on training and held-out images together.
REFITTED = ('linear_transfer', 'fine_tuned_transfer')
METRICS = dict(top1='top-1', top5='top-5', mean_per_class='mean per class',
               map_voc07='VOC07 mAP', map='mAP', rank1='rank-1', rank5='rank-5', rank10='rank-10')
RETRIEVED = ('map', 'rank1', 'rank5', 'rank10')
SHOTS = re.compile(r'top1_(\d+)_shots')


class Table(NamedTuple):
  """Text in cells.

  columns: titles.
  rows: as many cells each.
  notes: sentences that belong below.
  """

  columns: list[str]
  rows: list[list[str]]
  notes: list[str]


def markdown(table: Table) -> str:
  """The table as Markdown, its notes below."""
  lines = ['| ' + ' | '.join(table.columns) + ' |', '|' + ' --- |' * len(table.columns)]
  lines += ['| ' + ' | '.join(row) + ' |' for row in table.rows]
  return '\n'.join(lines + [f'\n{note}' for note in table.notes]) + '\n'


def scores(results: Sequence[Mapping[str, Any]]) -> Table:
  """A row per encoder, a column per evaluator, in percent.

  Args:
    results: of `evaluate`, one per seed. Several give mean +- standard deviation.

  Returns:
    The table, with notes that say what was counted.
  """
  first = results[0]
  evaluators = next(iter(first['encoders'].values()))
  columns = [(evaluator, metric) for evaluator, row in evaluators.items()
             for metric in _shown(evaluator, row)]
  titles = [f'{COLUMNS.get(e, e)} {_title(m)}' for e, m in columns]
  fine_tuned = any(evaluator in FINE_TUNED for evaluator in evaluators)
  rows = [[NAMES.get(encoder, encoder).removesuffix(', frozen' if fine_tuned else ''),
           *(_percent([r['encoders'][encoder][e] for r in results], m) for e, m in columns)]
          for encoder in first['encoders']]
  differing = [f'{COLUMNS.get(e, e)} differs from the paper, whose values are in brackets: '
               + '; '.join(row['differs_from_paper']) + '.'
               for e, row in evaluators.items() if row.get('differs_from_paper')]
  drawn = ['Few-shot: mean +- standard deviation over the draws of the images.'] if (
      len(results) == 1 and any(f'{m}_std' in evaluators[e] for e, m in columns)) else []
  refitted = [COLUMNS[e] for e in evaluators if e in REFITTED]
  last = [f'{" and ".join(refitted)}: after the choice trained on the training and the held-out '
          'images together.'] if refitted else []
  beside = [text for e in evaluators if (text := published.of_protocol(e, first['dataset']))]
  retrieved = [_retrieved(row) for row in evaluators.values() if 'map' in row]
  notes = [_counted(results), *retrieved, *last, *drawn, *differing, *beside]
  return Table(['encoder', *titles], rows, notes)


def _shown(evaluator: str, row: Mapping[str, Any]) -> list[str]:
  """The metrics of an evaluator that stand in the table, in their order."""
  main = row.get('metric', 'top1')
  return [metric for metric in (*METRICS, *filter(SHOTS.fullmatch, row))
          if metric in row and (metric in (main, 'top1', *RETRIEVED) or SHOTS.fullmatch(metric)
                                or metric == 'top5' and evaluator in WITH_TOP5)]


def _title(metric: str) -> str:
  shots = SHOTS.fullmatch(metric)
  return f'top-1, {shots[1]} per class' if shots else METRICS[metric]


def sweep(rows: Sequence[Mapping[str, Any]]) -> Table:
  """The rows of `sweep.table`; columns that nobody fills are left out."""
  columns = [name for name in dict.fromkeys(name for row in rows for name in row)
             if name != 'folder' and any(row.get(name) is not None for row in rows)]
  return Table(columns, [[cell(row.get(name)) for name in columns] for row in rows], [])


def cell(value: Any) -> str:
  """A value as a cell shows it; None is empty."""
  return '' if value is None else f'{value:.4g}' if isinstance(value, float) else str(value)


def _counted(results: Sequence[Mapping[str, Any]]) -> str:
  first, images = results[0], results[0]['images']
  count = first.get('unreadable', {}).get('test', 0)
  left_out = f' ({count} of them unreadable and left out)' if count else ''
  reads = max(r['test_split_reads'] for r in results)
  read = 'read once' if reads == 1 else f'read {reads} times by evaluations in this workdir'
  several = len(results) > 1
  # Of images with several labels each it is no number of the data set's classes alone.
  chance = '' if first['chance'] is None else f'; chance {100 * first["chance"]:.1f}'
  # Retrieval has nothing to choose, and a chance of its own.
  evaluators = set().union(*first['encoders'].values())
  choices = '' if evaluators == {'retrieval'} else (
      f', choices on {images["validation"]} held-out ones{chance}')
  return (f'Percent of {images["test"]} test images of {first["dataset"]}{left_out}, {read}; '
          f'{images["train"]} training images{choices}. Last checkpoint (step {first["step"]}), '
          f'seed{"s" if several else ""} {", ".join(str(r["seed"]) for r in results)}'
          f'{"; mean and standard deviation over seeds" if several else ""}.')


def _retrieved(row: Mapping[str, Any]) -> str:
  """What was counted in a retrieval."""
  more = [f'whitened to {row["whitening"]} dimensions'] * bool(row['whitening'])
  more += ['re-ranked by k-reciprocal neighbours'] * row['rerank']
  return (f'Retrieval: {row["queries"]} queries in a gallery of {row["gallery_images"]} images'
          f'{", " + ", ".join(more) if more else ""}; {row["queries_without_match"]} queries '
          f'without a match left out; mAP of a random order about {100 * row["chance_map"]:.1f}.')


def _percent(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Mean and spread over seeds; of one seed the spread over its draws, if it has any."""
  text = mean_and_spread([100 * row[metric] for row in rows])
  std = rows[0].get(f'{metric}_std') if len(rows) == 1 else None
  return text if std is None else f'{text} +- {100 * std:.1f}'


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
  """'80.3 +- 1.6': mean and sample standard deviation; one value alone as it is."""
  values = np.asarray(values, np.float64)
  if len(values) == 1:
    return f'{values[0]:.{digits}f}'
  return f'{values.mean():.{digits}f} +- {values.std(ddof=1):.{digits}f}'
