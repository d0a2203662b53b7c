"""Charts as inline SVG that takes its colours from the page, so light and dark mode work."""

from collections.abc import Sequence
import io
import re
from typing import NamedTuple

import matplotlib

matplotlib.use('Agg')
from matplotlib import lines, pyplot
import numpy as np

# Placeholder colours that become CSS variables of the page.
INK, GRID, PAPER = '#000a01', '#000a02', '#000a03'
SERIES = tuple(f'#000b{i:02x}' for i in range(10))
STYLES = ('-', '--', ':', '-.')


class Line(NamedTuple):
  """A curve.

  colour: an index into SERIES.
  dashes: an index into STYLES.
  steps: [n].
  values: [n].
  faint: draws a thin line, for the second curve of a run in a chart.
  """

  colour: int
  dashes: int
  steps: Sequence[float]
  values: Sequence[float]
  faint: bool = False


def curves(title: str, found: Sequence[Line], *, bottom: float | None = 0.,
           top: float | None = None, logarithmic: bool = False, below: str = 'step',
           beside: str = '') -> str:
  """A chart, over steps unless `below` says otherwise, as SVG; '' if there is nothing to draw.

  Args:
    title: title above the chart.
    found: the curves.
    bottom: lower end of the vertical axis; None derives it from the values.
    top: upper end of the vertical axis; None derives it from the values.
    logarithmic: whether the vertical axis is logarithmic.
    below: name of the horizontal axis.
    beside: name of the vertical axis.
  """
  drawn = [curve for curve in found if curve.steps]
  if not drawn:
    return ''
  figure, axes = _axes(title, 4.4, 2.9)
  for line in drawn:
    axes.plot(line.steps, line.values, color=SERIES[line.colour],
              linestyle=STYLES[line.dashes], linewidth=.8 if line.faint else 1.8,
              marker='o' if len(line.steps) <= 12 else None, markersize=4)
  if logarithmic:
    axes.set_yscale('log')
  else:
    axes.set_ylim(bottom=bottom, top=top)
  axes.set_xlabel(below)
  axes.set_ylabel(beside)
  return _svg(figure, title)


def points(title: str, positions: np.ndarray, labels: np.ndarray,
           class_names: Sequence[str] = ()) -> str:
  """A map of positions [N, 2] as SVG, coloured by labels [N], with a legend of class names."""
  figure, axes = _axes(title, 6.5, 6.5)
  axes.grid(False)
  axes.set(xticks=[], yticks=[], aspect='equal')
  for label in np.unique(labels):
    chosen = positions[labels == label]
    axes.scatter(*chosen.T, s=14, color=SERIES[label % len(SERIES)], linewidths=0)
    # Numbers in addition to colours, for colour-blind readers and because colours repeat.
    middle = chosen[np.argmin(np.linalg.norm(chosen - np.median(chosen, axis=0), axis=1))]
    axes.annotate(str(label), middle, color=INK, weight='bold', ha='center', va='center',
                  bbox=dict(boxstyle='circle,pad=.2', facecolor=PAPER, edgecolor=GRID))
  if len(np.unique(labels)) <= len(SERIES):
    handles = [lines.Line2D([], [], marker='o', linestyle='', color=SERIES[label % len(SERIES)],
                            label=f'{label}: {_short(class_names[label])}' if class_names
                            else f'class {label}') for label in np.unique(labels)]
    axes.legend(handles=handles, labelcolor=INK, facecolor='none', edgecolor=GRID, fontsize=8,
                loc='upper center', bbox_to_anchor=(.5, 0), ncols=5)
  return _svg(figure, title)


def _short(name: str) -> str:
  """A name for a legend; a dollar sign would start a formula."""
  return (name if len(name) <= 16 else f'{name[:15]}…').replace('$', r'\$')


def _axes(title: str, width: float, height: float):
  figure, axes = pyplot.subplots(figsize=(width, height), layout='constrained')
  axes.set_title(title, color=INK, fontsize=11)
  axes.tick_params(colors=INK, labelsize=9)
  axes.xaxis.label.set_color(INK)
  axes.yaxis.label.set_color(INK)
  axes.grid(True, color=GRID, linewidth=.6)
  for spine in axes.spines.values():
    spine.set_color(GRID)
  return figure, axes


def _svg(figure, title: str) -> str:
  """The figure with CSS variables for colours and without a fixed size."""
  text = io.StringIO()
  # The salt keeps the ids of different charts on a page distinct.
  with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': title}):
    figure.savefig(text, format='svg', transparent=True,
                   metadata=dict(Date=None, Creator=None, Format=None, Type=None))
  pyplot.close(figure)
  svg = text.getvalue()
  svg = svg[svg.index('<svg'):]
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
  svg = re.sub(r' (width|height)="[\d.]+pt"', '', svg, count=2)
  svg = re.sub(r' xmlns(:\w+)?="[^"]+"', '', svg).replace('xlink:href', 'href')
  for i, colour in enumerate(SERIES):
    svg = svg.replace(colour, f'var(--series-{i})')
  for colour, name in ((INK, 'ink'), (GRID, 'grid'), (PAPER, 'paper')):
    svg = svg.replace(colour, f'var(--{name})')
  return svg
