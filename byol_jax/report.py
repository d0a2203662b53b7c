"""A run or several -> tables and pictures."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import matplotlib
import numpy as np

matplotlib.use('Agg')
from matplotlib import pyplot

NAMES = dict(pretrained='BYOL, frozen', random='random encoder', pixels='raw pixels',
             supervised='supervised')
COLUMNS = dict(linear='linear (C.1)', linear_features='linear on features', knn='kNN')
# Evaluators whose top-5 stands in the table too; results.json has all.
WITH_TOP5 = ('linear',)


def table(results: Sequence[Mapping[str, Any]]) -> str:
  """A Markdown table: a row per encoder, a column per evaluator, in percent.

  Args:
    results: of `evaluate`, one per seed. Several give mean +- standard deviation.

  Returns:
    The table, with a line that says what was counted.
  """
  first = results[0]
  evaluators = next(iter(first['encoders'].values()))
  columns = [(evaluator, metric) for evaluator in evaluators for metric in ('top1', 'top5')
             if metric == 'top1' or evaluator in WITH_TOP5 and metric in evaluators[evaluator]]
  titles = [f'{COLUMNS.get(e, e)} {m.replace("top", "top-")}' for e, m in columns]
  lines = ['| encoder | ' + ' | '.join(titles) + ' |', '| --- |' + ' --- |' * len(columns)]
  notes = [f'\n{COLUMNS.get(e, e)} differs from the paper, whose values are in brackets: '
           + '; '.join(row['differs_from_paper']) + '.'
           for e, row in evaluators.items() if row.get('differs_from_paper')]
  for encoder in first['encoders']:
    cells = [_percent([r['encoders'][encoder][e][m] for r in results]) for e, m in columns]
    lines.append(f'| {NAMES.get(encoder, encoder)} | ' + ' | '.join(cells) + ' |')
  seeds = ', '.join(str(r['seed']) for r in results)
  images = first['images']
  lines.append(
      f'\nPercent of {images["test"]} test images of {first["dataset"]}{_left_out(first)}, '
      f'{_reads(results)}; '
      f'{images["train"]} training images, choices on {images["validation"]} held-out ones; chance '
      f'{100 * first["chance"]:.1f}. Last checkpoint (step {first["step"]}), seed'
      f'{"s" if len(results) > 1 else ""} {seeds}'
      f'{"; mean and standard deviation over seeds" if len(results) > 1 else ""}.')
  return '\n'.join(lines + notes) + '\n'


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows of `sweep.table` as Markdown; columns that nobody fills are left out."""
  columns = [name for name in dict.fromkeys(name for row in rows for name in row)
             if name != 'folder' and any(row.get(name) is not None for row in rows)]
  lines = ['| ' + ' | '.join(columns) + ' |', '|' + ' --- |' * len(columns)]
  for row in rows:
    lines.append('| ' + ' | '.join(_cell(row.get(name)) for name in columns) + ' |')
  return '\n'.join(lines) + '\n'


def _cell(value: Any) -> str:
  return '' if value is None else f'{value:.4g}' if isinstance(value, float) else str(value)


def _left_out(result: Mapping[str, Any]) -> str:
  count = result.get('unreadable', {}).get('test', 0)
  return f' ({count} of them unreadable and left out)' if count else ''


def _reads(results: Sequence[Mapping[str, Any]]) -> str:
  most = max(r['test_split_reads'] for r in results)
  return 'read once' if most == 1 else f'read {most} times by evaluations in this workdir'


def _percent(values: Sequence[float]) -> str:
  percent = 100 * np.array(values)
  if len(percent) == 1:
    return f'{percent[0]:.1f}'
  return f'{percent.mean():.1f} +- {percent.std(ddof=1):.1f}'


def picture(path: str | pathlib.Path, records: Sequence[Mapping[str, float]],
            view1: np.ndarray, view2: np.ndarray) -> None:
  """Draws curves of a run beside augmented pairs.

  Args:
    path: of the PNG.
    records: of `metric_log.read`.
    view1: [N, H, W, 3] in [0, 1]; the first view of N images.
    view2: the same images' second view.
  """
  curves = (
      ('BYOL loss (0 to 8)', ['train/byol_loss']),
      ('top-1: online probe and held-out kNN', ['train/top1', 'knn/top1']),
      ('spread of projections (0: collapsed)', ['collapse/std']),
      ('effective rank of projections', ['collapse/effective_rank']))
  figure = pyplot.figure(figsize=(14, 7), layout='constrained')
  left, right = figure.subfigures(1, 2, width_ratios=[3, 2])
  for axes, (title, names) in zip(left.subplots(2, 2).flat, curves):
    for name in names:
      points = [(r['step'], r[name]) for r in records if name in r]
      if points:
        axes.plot(*zip(*points), marker='.', label=name)
    axes.set(title=title, xlabel='step')
    axes.set_ylim(bottom=0, top=1.05 if 'std' in names[0] else None)
    if axes.lines:
      axes.legend()
    else:
      axes.text(.5, .5, 'not recorded: unlabelled data', ha='center', transform=axes.transAxes)
  _draw_pairs(right, view1, view2)
  figure.savefig(path, dpi=100)
  pyplot.close(figure)


def _draw_pairs(figure, view1: np.ndarray, view2: np.ndarray) -> None:
  """Pairs side by side, two pairs a row."""
  figure.suptitle('augmented pairs: view 1 | view 2')
  pairs = np.concatenate([np.asarray(view1), np.asarray(view2)], axis=2)
  for axes, pair in zip(figure.subplots(-(-len(pairs) // 2), 2).flat, pairs):
    axes.imshow(pair, interpolation='nearest')
    axes.axvline(pair.shape[1] / 2 - .5, color='white')
    axes.set_axis_off()
