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
  """A table of text cells.

  columns: column titles.
  rows: each has one cell per column.
  notes: sentences to show below the table.
  """

  columns: list[str]
  rows: list[list[str]]
  notes: list[str]


def markdown(table: Table) -> str:
  """The table as Markdown, with its notes below."""
  lines = ['| ' + ' | '.join(table.columns) + ' |', '|' + ' --- |' * len(table.columns)]
  lines += ['| ' + ' | '.join(row) + ' |' for row in table.rows]
  return '\n'.join(lines + [f'\n{note}' for note in table.notes]) + '\n'


def scores(results: Sequence[Mapping[str, Any]]) -> Table:
  """A table of scores in percent, with a row per encoder and a column per evaluator.

  Args:
    results: results of `evaluate`, one per seed. Several give mean +- standard deviation.

  Returns:
    The table, with notes about what was counted.
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
  """The name of an encoder in tables and logs; BYOL's says whether it is frozen."""
  return NAMES.get(encoder, encoder) + ', frozen' * (frozen and encoder == 'pretrained')


def _notes(judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """The notes of the evaluators below the table."""
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
  """A table of the rows from `sweep.table.rows`; empty columns are left out."""
  columns = [name for name in dict.fromkeys(name for row in rows for name in row)
             if name != 'folder' and any(row.get(name) is not None for row in rows)]
  return Table(columns, [[cell(row.get(name)) for name in columns] for row in rows], [])


def cell(value: Any) -> str:
  """A value as text for a cell; None is empty."""
  return '' if value is None else f'{value:.4g}' if isinstance(value, float) else str(value)


def _counted(results: Sequence[Mapping[str, Any]]) -> str:
  first, images = results[0], results[0]['images']
  count = first.get('unreadable', {}).get('test', 0)
  left_out = f' ({count} of them unreadable and left out)' if count else ''
  reads = max(r['test_split_reads'] for r in results)
  read = 'read once' if reads == 1 else f'read {reads} times by evaluations in this workdir'
  several = len(results) > 1
  # For images with several labels each, the chance level does not depend only on the classes.
  chance = '' if first['chance'] is None else f'; chance {100 * first["chance"]:.1f}'
  # Retrieval chooses nothing and has its own chance level.
  judged = set().union(*first['encoders'].values())
  choices = '' if all(plugins.has(e, 'RETRIEVES') for e in judged) else (
      f', choices on {images["validation"]} held-out ones{chance}')
  return (f'Percent of {images["test"]} test images of {first["dataset"]}{left_out}, {read}; '
          f'{images["train"]} training images{choices}. Last checkpoint (step {first["step"]}), '
          f'seed{"s" if several else ""} {", ".join(str(r["seed"]) for r in results)}'
          f'{"; mean and standard deviation over seeds" if several else ""}.')


def _percent(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
  """Mean and spread over seeds; for a single seed, the spread over its draws, if any."""
  text = mean_and_spread([100 * row[metric] for row in rows])
  std = rows[0].get(f'{metric}_std') if len(rows) == 1 else None
  return text if std is None else f'{text} +- {100 * std:.1f}'


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
  """'80.3 +- 1.6': mean and sample standard deviation; a single value is shown alone."""
  values = np.asarray(values, np.float64)
  if len(values) == 1:
    return f'{values[0]:.{digits}f}'
  return f'{values.mean():.{digits}f} +- {values.std(ddof=1):.{digits}f}'
