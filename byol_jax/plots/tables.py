"""Tables of scores and of sweeps, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from byol_jax import plugins
from byol_jax.errors import InputError
from byol_jax.plots import published, titles

NAMES = dict(pretrained='BYOL', random='random encoder', pixels='raw pixels',
             supervised='supervised')


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
  judged = next(iter(first['encoders'].values()))
  columns = [(evaluator, metric, f'{titles.title(evaluator)} {text}')
             for evaluator, row in judged.items()
             for metric, text in titles.in_table(evaluator, row).items()]
  frozen = not any(plugins.has(e, 'TRAINS_ENCODER') for e in judged)
  rows = [[name_of(encoder, frozen),
           *(_percent([r['encoders'][encoder][e] for r in results], m) for e, m, _ in columns)]
          for encoder in first['encoders']]
  differing = [f'{titles.title(e)} differs from the paper, whose values are in brackets: '
               + '; '.join(row['differs_from_paper']) + '.'
               for e, row in judged.items() if row.get('differs_from_paper')]
  drawn = [f'{_capital(titles.title(e))}: mean +- standard deviation over the draws of the '
           'images.' for e, row in judged.items()
           if len(results) == 1 and any(f'{m}_std' in row for m in titles.in_table(e, row))]
  refitted = [titles.title(e) for e in judged if plugins.has(e, 'REFITS')]
  last = [f'{" and ".join(refitted)}: after the choice trained on the training and the held-out '
          'images together.'] if refitted else []
  beside = [text for e in judged if (text := published.of_protocol(e, first['dataset']))]
  notes = [_counted(results), *_notes(judged), *last, *drawn, *differing, *beside]
  return Table(['encoder', *(text for _, _, text in columns)], rows, notes)


def name_of(encoder: str, frozen: bool) -> str:
  """What tables and logs call an encoder; BYOL's says whether it is as it was pretrained."""
  return NAMES.get(encoder, encoder) + ', frozen' * (frozen and encoder == 'pretrained')


def _notes(judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """What evaluators have to say below the table."""
  found = []
  for evaluator, row in judged.items():
    note = getattr(plugins.load('evaluators', evaluator), 'note', None)
    try:
      found += [note(row)] if note else []
    except KeyError as error:
      raise InputError(f'The results of {evaluator} have no {error}; evaluate again.') from error
  return found


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]


def sweep(rows: Sequence[Mapping[str, Any]]) -> Table:
  """The rows of `sweep.table.rows`; columns that nobody fills are left out."""
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
  judged = set().union(*first['encoders'].values())
  choices = '' if all(plugins.has(e, 'RETRIEVES') for e in judged) else (
      f', choices on {images["validation"]} held-out ones{chance}')
  return (f'Percent of {images["test"]} test images of {first["dataset"]}{left_out}, {read}; '
          f'{images["train"]} training images{choices}. Last checkpoint (step {first["step"]}), '
          f'seed{"s" if several else ""} {", ".join(str(r["seed"]) for r in results)}'
          f'{"; mean and standard deviation over seeds" if several else ""}.')


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
