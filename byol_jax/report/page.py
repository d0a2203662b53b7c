"""Writes runs as one self-contained HTML page: no scripts, no external links, light and dark."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import importlib.resources
import pathlib
from typing import Any, NamedTuple

import jinja2
import numpy as np

from byol_jax import checkpoint, files
from byol_jax.config import deciding
from byol_jax.errors import InputError
from byol_jax.input_pipeline.records import class_name
from byol_jax.plots import figures, pictures
from byol_jax.plots.tables import Table
from byol_jax.report import compare, diagnosis, sample, sections
from byol_jax.report.runs import Run

QUERIES, NEIGHBOURS = 8, 8
# Smaller shares of the variance are rounding, and not drawn.
SMALLEST_SHARE = 1e-6
# The number of settings with their own colour; more lines would only hide each other.
MOST_SETTINGS = len(figures.SERIES)
# The parts of a run's time, as `monitor` and `train` log them.
TIMES = dict(start='start: reading data, building, restoring', compilation='compilation',
             training='training', data_wait='waiting for data',
             evaluation='evaluation during the run',
             checkpoint='checkpoints (the part that the training waits for)')


class Chart(NamedTuple):
  """A chart over steps with one curve per metric and run; the second metric is drawn thin."""

  title: str
  metrics: tuple[str, ...]
  top: float | None = None
  logarithmic: bool = False
  scale: float = 1.


CHARTS = (
    Chart('BYOL loss (0 to 8)', ('train/byol_loss',)),
    Chart('top-1, %: held-out kNN (thin: online probe)', ('knn/top1', 'train/top1'), scale=100.),
    Chart('spread of projections (0: collapsed)', ('collapse/std',), top=1.05),
    Chart('effective rank of held-out embeddings', ('embeddings/effective_rank',),
          logarithmic=True),
    Chart('effective rank of projections', ('collapse/effective_rank',)),
    Chart('length of projections', ('collapse/projection_norm',)),
    Chart('learning rate', ('train/learning_rate',)),
    Chart('1 - tau', ('one_minus_tau',)),
    Chart('images per second', ('time/images_per_second',)),
)


SPECTRUM = 'spectrum of held-out embeddings (thin: first)'


class Neighbours(NamedTuple):
  """A query and its nearest images, as data URIs.

  query: the picture.
  caption: its class; '' for unlabelled data.
  others: (picture, caption, 'right', 'wrong' or '') of each neighbour.
  """

  query: str
  caption: str
  others: list[tuple[str, str, str]]


def write(runs: Sequence[Run], output: str | pathlib.Path, *, images: int, pictured: int,
          paper: Mapping[str, Any]) -> pathlib.Path:
  """Writes the page.

  Args:
    runs: from `runs.read`.
    output: the HTML file.
    images: number of held-out images encoded for neighbours and map; 0 for none.
    pictured: the maximum number of runs with neighbours and map.
    paper: the config of the paper's run, to compare a single run with.

  Returns:
    The path of the page.

  Raises:
    InputError: the page cannot be written.
  """
  output = pathlib.Path(output).expanduser().absolute()
  with _writing(output):
    output.parent.mkdir(parents=True, exist_ok=True)
    files.check_writable(output)
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined,
                                   trim_blocks=True, lstrip_blocks=True)
  own = importlib.resources.files('byol_jax.report')
  template = environment.from_string((own / 'page.html').read_text())
  text = template.render(css=(own / 'page.css').read_text(),
                         **_content(runs, images, pictured, paper))
  with _writing(output), files.atomic_write(output) as file:
    file.write(text)
  return output


@contextlib.contextmanager
def _writing(output: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise InputError(f'{output} cannot be written ({error.strerror}); give another --output.'
                     ) from error


def _content(runs, images: int, pictured: int, paper) -> dict[str, Any]:
  found = compare.settings(runs)
  names = _names(runs, found)
  places = {run.folder: (colour % len(figures.SERIES), dashes % len(figures.STYLES))
            for colour, setting in enumerate(found[:MOST_SETTINGS])
            for dashes, run in enumerate(setting.runs)}
  drawn = [run for run in runs if run.folder in places]
  first = [run.folder for run in runs if run.checkpoints][:pictured]
  return dict(
      title=runs[0].name if len(runs) == 1 else f'{len(runs)} runs', several=len(runs) > 1,
      summary=_summary(runs, names), scores=sections.scores(found),
      effects=[sections.effect(effect) for effect in compare.effects(found)],
      differences=_differences(runs, paper),
      legend=[(colour % len(figures.SERIES), setting.name or 'all runs',
               ', '.join(str(run.config['seed']) for run in setting.runs))
              for colour, setting in enumerate(found[:MOST_SETTINGS])],
      left_out=sum(bool(run.config) for run in runs) - len(drawn),
      charts=[(chart.title, _chart(chart, drawn, places)) for chart in CHARTS]
      + [(SPECTRUM, _spectrum(drawn, places))],
      normal=diagnosis.NORMAL,
      runs=[dict(name=names[run.folder], number=i, findings=diagnosis.findings(run),
                 collapsed=diagnosis.verdict(run) == diagnosis.COLLAPSED, views=_views(run),
                 pictures=_pictures(run, images, run.folder in first, i, pictured),
                 times=_times(run), checkpoints=_checkpoints(run), load=_how_to_load(run))
            for i, run in enumerate(runs)])


def _names(runs, found) -> dict[pathlib.Path, str]:
  """The name that distinguishes each run: its setting and seed, or its folder."""
  names = {run.folder: run.name for run in runs}
  for setting in found:
    for run in setting.runs:
      if len(runs) > 1:
        own = [setting.name] * bool(setting.name) + [f'seed={run.config["seed"]}']
        names[run.folder] = f'{run.name}: {"  ".join(own)}'
  for run in runs:
    if not run.config and run.failure:
      overrides = run.failure.get('overrides', {})
      names[run.folder] = f'{run.name}: ' + '  '.join(f'{k}={v}' for k, v in overrides.items())
  return names


def _summary(runs, names) -> Table:
  rows = []
  for run in runs:
    verdict = diagnosis.verdict(run)
    knn, speed = run.last('knn/top1'), run.last('time/images_per_second')
    total = run.resolved.get('max_steps', '?')
    rows.append([names[run.folder], run.state, f'{run.step} of {total}', verdict,
                 'not measured' if knn is None else f'{100 * knn:.1f}',
                 'not logged' if speed is None else f'{speed:.0f}'])
  return Table(['run', 'state', 'steps', 'collapsed', 'held-out kNN top-1, %', 'images/s'],
               rows, [])


def _differences(runs, paper) -> Table:
  started = [run for run in runs if run.config]
  if len(started) == 1:
    theirs, ours = map(deciding, (paper, started[0].config))
    rows = [[key, compare.shown(theirs.get(key, compare.ABSENT)),
             compare.shown(ours.get(key, compare.ABSENT))]
            for key in sorted({*ours, *theirs})
            if ours.get(key) != theirs.get(key) and (ours.get(key), theirs.get(key)) != (None, {})]
    return Table(['key', "the paper's run (imagenet_r50.py)", 'this run'], rows, [])
  return Table(['key', *(run.name for run in started)],
               [[key, *map(compare.shown, values)]
                for key, values in compare.differing(started).items()], [])


def _chart(chart: Chart, runs: Sequence[Run], places) -> str:
  lines = []
  for run in runs:
    for i, metric in enumerate(chart.metrics):
      if metric == 'one_minus_tau':
        steps, values = run.series('train/tau')
        values = [1 - value for value in values]
      else:
        steps, values = run.series(metric)
      lines.append(figures.Line(*places[run.folder], steps,
                                [chart.scale * value for value in values], faint=i > 0))
  return figures.curves(chart.title, lines, top=chart.top, logarithmic=chart.logarithmic)


def _spectrum(runs: Sequence[Run], places) -> str:
  """The last spectrum of each run, and the first, which is nearly that of the initial encoder."""
  lines = []
  for run in runs:
    spectra = [values for _, values in run.spectra()]
    for values, faint in [(spectra[-1:], False), (spectra[:-1][:1], True)]:
      shown = [value for value in sum(values, []) if value >= SMALLEST_SHARE]
      lines.append(figures.Line(*places[run.folder], range(1, len(shown) + 1), shown, faint))
  return figures.curves(SPECTRUM, lines, logarithmic=True, below='direction',
                        beside='share of the variance')


def _views(run: Run) -> str:
  path = run.folder / pictures.VIEWS
  return pictures.embedded(path) if path.is_file() else ''


def _pictures(run: Run, images: int, chosen: bool, number: int, pictured: int) -> dict[str, Any]:
  """Neighbours and map; if there are none, `missing` says why."""
  empty = dict(missing='', neighbours=[], right='', chart='', picture='', count=0, no_map='',
               step=0)
  if not run.checkpoints:
    return empty | dict(missing='There is no checkpoint yet.')
  if not images:
    return empty | dict(missing='Left out by --images=0.')
  if not chosen:
    return empty | dict(missing=f'Not drawn: the first {pictured} runs with checkpoints have '
                        'these pictures; --pictured=N draws more.')
  try:
    found = sample.draw(run, images)
  except (InputError, OSError) as error:
    return empty | dict(missing=f'The images could not be encoded: {error}')
  drawn = empty | dict(neighbours=_neighbours(found), right=_right(found), step=found.step,
                       count=len(found.images))
  try:
    places = pictures.positions(found.embeddings)
  except InputError as error:
    return drawn | dict(no_map=str(error))
  labels = found.labels
  return drawn | dict(
      picture=pictures.picture_map(found.images, places),
      chart='' if labels is None else figures.points(
          f'classes, run {number + 1}', places, labels, found.class_names))


def _right(found: pictures.Sample) -> str:
  """The share of images with a nearest neighbour of their own class; '' for unlabelled data."""
  if found.labels is None or len(found.labels) < 2:
    return ''
  nearest = pictures.nearest(found.embeddings, range(len(found.labels)), 1)[:, 0]
  share = np.mean(found.labels[nearest] == found.labels)
  return f'Of all of them {100 * share:.0f} % have a nearest neighbour of their class.'


def _neighbours(found: pictures.Sample) -> list[Neighbours]:
  queries = pictures.examples(found.labels, len(found.images), QUERIES)
  caption: Callable[[int], str] = lambda row: (
      '' if found.labels is None else class_name(found.class_names, found.labels[row]))
  mark = lambda query, row: '' if found.labels is None else (
      'right' if found.labels[row] == found.labels[query] else 'wrong')
  return [Neighbours(pictures.tile(found.images[query]), caption(query),
                     [(pictures.tile(found.images[row]), caption(row), mark(query, row))
                      for row in rows])
          for query, rows in zip(queries, pictures.nearest(found.embeddings, queries, NEIGHBOURS))]


def _times(run: Run) -> list[tuple[str, str, float]]:
  """(part, time, share in percent) from the logs of the run; empty for older runs."""
  seconds = {name: sum(run.series(f'time/{name}_seconds')[1]) for name in TIMES}
  total = sum(seconds.values())
  return [(TIMES[name], f'{value:.0f} s' if value < 600 else f'{value / 60:.0f} min',
           100 * value / total) for name, value in seconds.items() if total and value]


def _checkpoints(run: Run) -> Table:
  rows, knn = [], dict(zip(*run.series('knn/top1')))
  for step in run.checkpoints:
    folder = run.folder / 'checkpoints' / str(step)
    size = sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())
    try:
      digest = checkpoint.read_meta(run.folder, step)['digests']['online']
    except InputError:
      # A run that is still going may have deleted it in the meantime.
      digest = 'gone'
    digest = 'damaged' if step in run.damaged else digest
    rows.append([str(step), f'{step / run.resolved["steps_per_epoch"]:.1f}' if run.resolved else '',
                 f'{100 * knn[step]:.1f}' if step in knn else 'not measured',
                 f'{size / 2 ** 20:.1f}', digest[:12]])
  return Table(['step', 'epoch', 'held-out kNN top-1, %', 'MiB', 'sha256 of the online network'],
               rows, [])


def _how_to_load(run: Run) -> str:
  if not (run.checkpoints and run.config):
    return ''
  size = run.config['data']['image_size']
  return (f'import byol_jax\n\nencoder = byol_jax.load_encoder({str(run.folder)!r})'
          f'  # the newest; step={run.checkpoints[0]} for that one\n'
          f'embeddings = encoder(images)  # floats [B, {size}, {size}, 3] in [0, 1] -> [B, D]')
