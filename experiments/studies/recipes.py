"""What was tried to find the recipes: a section of docs/recipes.md, from the tables of sweeps."""

from collections.abc import Mapping, Sequence
import inspect
import pathlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from experiments import config_files
from byol_jax import files
from byol_jax.errors import InputError
from byol_jax.plots.tables import Table, markdown, mean_and_spread
from byol_jax.sweep import table

CONFIGS = pathlib.Path('experiments/configs/recipes')
TABLES = pathlib.Path('docs/measurements/recipes')
# What is above this line in the page is not written by the command.
BEGIN = '<!-- What follows is written by experiments.recipes. -->'
NOT_CHANGED = ('point', 'state', 'step', 'seed')
# Column of the section -> metric, its factor.
MEASURED = {
    'held-out kNN, %': ('knn/top1', 100),
    'effective rank of embeddings': ('embeddings/effective_rank', 1),
    'test: linear on features, %': ('pretrained/linear_features/top1', 100),
    'test: kNN, %': ('pretrained/knn/top1', 100),
}


class Setting(NamedTuple):
  """The points of a sweep that differ only in their seeds.

  changes: 'key=value, ...'; 'none' for the base config of the sweep.
  rows: their rows in the table.
  """

  changes: str
  rows: list[Mapping[str, Any]]


def settings(rows: Sequence[Mapping[str, Any]]) -> list[Setting]:
  """Groups the rows of a sweep's table; the best mean of held-out kNN comes first."""
  grouped: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    changes = {key: value for key, value in row.items()
               if '/' not in key and key not in NOT_CHANGED}
    grouped.setdefault(_named(changes), []).append(row)
  score = lambda setting: -np.mean([row['knn/top1'] for row in setting.rows])
  return sorted((Setting(*each) for each in grouped.items()), key=score)


def _named(changes: Mapping[str, Any]) -> str:
  """The changes in words; the same change of both views is named once."""
  shown = {}
  for key, value in changes.items():
    both = all(changes.get(f'{view}.{key.partition(".")[2]}') == value
               for view in ('view1', 'view2'))
    shown['views.' + key.partition('.')[2] if both and key.startswith('view') else key] = value
  return ', '.join(f'`{key}={value}`' for key, value in shown.items()) or 'none'


def summary(rows: Sequence[Mapping[str, Any]]) -> Table:
  """A row per setting: its seeds, and mean and standard deviation of what was measured."""
  measured = {column: each for column, each in MEASURED.items()
              if any(row.get(each[0]) is not None for row in rows)}
  cells = []
  for setting in settings(rows):
    cells.append([setting.changes, ', '.join(str(row['seed']) for row in setting.rows)])
    for metric, factor in measured.values():
      values = [factor * row[metric] for row in setting.rows if row.get(metric) is not None]
      cells[-1].append(mean_and_spread(values) if values else '-')
  return Table(['change', 'seeds', *measured], cells, [])


def section(sweeps: Sequence[tuple[str, ModuleType, Sequence[Mapping[str, Any]]]]) -> str:
  """The section, as Markdown; each sweep is (path of its config, its module, rows of its table)."""
  parts = ['\n## What was tried\n\nMean and standard deviation over the seeds; one seed says '
           'little. Everything was\nchosen by kNN on held-out images, not on test images. Points '
           'that were not finished are left out.\n']
  for path, module, rows in sweeps:
    title, _, text = inspect.getdoc(module).partition('\n')
    # The commands of the docstring are in the config itself.
    words = [part for part in text.strip('\n').split('\n\n') if not part.startswith(' ')]
    parts.append('\n'.join([f'\n### {title.rstrip(".")}\n', f'[`{path}`](../{path})\n',
                            *(f'{part}\n' for part in words), markdown(summary(rows))]))
  return '\n'.join(parts)


def sweeps() -> list[tuple[str, ModuleType, list[Mapping[str, Any]]]]:
  """The path of each config, its module, and the finished points of its table."""
  return [(str(path), config_files.module(str(path))[0], read(table_of(path)))
          for path in sorted(CONFIGS.glob('[!_]*.py'))]


def table_of(config: pathlib.Path) -> pathlib.Path:
  """The table that is kept of a sweep."""
  return TABLES / config.with_suffix('.json').name


def read(path: pathlib.Path) -> list[Mapping[str, Any]]:
  """The finished points of a sweep's table.

  Raises:
    InputError: there are none.
  """
  rows = list(table.finished(path).values())
  if not rows:
    raise InputError(f'{path} has no finished point; run experiments.sweep with --table={path}.')
  return rows


def write(output: pathlib.Path,
          sweeps: Sequence[tuple[str, ModuleType, Sequence[Mapping[str, Any]]]]) -> None:
  """Writes the section into the page, below the line BEGIN.

  Raises:
    InputError: the page does not have that line.
  """
  above, begin, _ = output.read_text().partition(BEGIN) if output.exists() else ('', '', '')
  if not begin:
    raise InputError(f'{output} has no line {BEGIN!r}, after which the section is written.')
  with files.atomic_write(output) as file:
    file.write(above + begin + '\n' + section(sweeps))
