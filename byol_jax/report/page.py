"""Runs -> one self-contained HTML page: no script, no outside link, light and dark."""

from collections.abc import Callable, Mapping, Sequence
import importlib.resources
import os
import pathlib
import shlex
from typing import Any, NamedTuple

import jinja2

from byol_jax import assembly, checkpoint
from byol_jax.errors import InputError
from byol_jax.report import compare, diagnosis, figures, pictures, published, sample, tables
from byol_jax.report.runs import Run
from byol_jax.report.tables import Table

QUERIES, NEIGHBOURS = 8, 8
# Parts of a run's time as `monitor` and `train` log them.
TIMES = dict(start='start: reading data, building, restoring', compilation='compilation',
             training='training', data_wait='waiting for data', evaluation='kNN during the run',
             checkpoint='checkpoints (the part that the training waits for)')


class Chart(NamedTuple):
  """A chart of curves over steps, one of each metric per run; the second is drawn thin."""

  title: str
  metrics: tuple[str, ...]
  top: float | None = None
  logarithmic: bool = False
  scale: float = 1.


CHARTS = (
    Chart('BYOL loss (0 to 8)', ('train/byol_loss',)),
    Chart('top-1, %: held-out kNN (thin: online probe)', ('knn/top1', 'train/top1'), scale=100.),
    Chart('spread of projections (0: collapsed)', ('collapse/std',), top=1.05),
    Chart('effective rank of projections', ('collapse/effective_rank',)),
    Chart('length of projections', ('collapse/projection_norm',)),
    Chart('learning rate', ('train/learning_rate',)),
    Chart('1 - tau', ('one_minus_tau',)),
    Chart('images per second', ('time/images_per_second',)),
)


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
    runs: of `runs.read`.
    output: the HTML file.
    images: held-out images that are encoded for neighbours and map; 0 for none.
    pictured: at most so many runs have them.
    paper: the config of the paper's run, from which a single run's differs.

  Returns:
    The path of the page.

  Raises:
    InputError: the page cannot be written.
  """
  environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined,
                                   trim_blocks=True, lstrip_blocks=True)
  files = importlib.resources.files('byol_jax.report')
  template = environment.from_string((files / 'page.html').read_text())
  text = template.render(css=(files / 'page.css').read_text(),
                         **_content(runs, images, pictured, paper))
  output = pathlib.Path(output).expanduser().absolute()
  partial = output.with_name(output.name + '.partial')
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(text)
    os.replace(partial, output)
  except OSError as error:
    raise InputError(f'{output} cannot be written ({error.strerror}); give another --output.'
                     ) from error
  return output


def _content(runs, images: int, pictured: int, paper) -> dict[str, Any]:
  found = compare.settings(runs)
  names = _names(runs, found)
  started = [run for run in runs if run.config][:figures.MOST]
  return dict(
      title=runs[0].name if len(runs) == 1 else f'{len(runs)} runs', several=len(runs) > 1,
      summary=_summary(runs, names),
      scores=_scores(found),
      effects=[_effect(effect) for effect in compare.effects(found)],
      differences=_differences(runs, paper),
      legend=[(i % len(figures.SERIES), i // len(figures.SERIES), names[run.folder])
              for i, run in enumerate(started)],
      left_out=max(0, sum(bool(run.config) for run in runs) - len(started)),
      charts=[(chart.title, _chart(chart, started)) for chart in CHARTS],
      normal=diagnosis.NORMAL,
      runs=[dict(name=names[run.folder], number=i, findings=diagnosis.findings(run),
                 collapsed=diagnosis.has_collapsed(run), views=_views(run),
                 pictures=_pictures(run, images if i < pictured else 0, i, pictured),
                 times=_times(run), checkpoints=_checkpoints(run), load=_how_to_load(run))
            for i, run in enumerate(runs)])


def _names(runs, found) -> dict[pathlib.Path, str]:
  """What tells a run from the others: its setting and seed, or its folder."""
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
    verdict = {None: 'not known', True: 'collapsed', False: 'no'}[diagnosis.has_collapsed(run)]
    knn, speed = run.last('knn/top1'), run.last('time/images_per_second')
    total = run.resolved.get('max_steps', '?')
    rows.append([names[run.folder], run.state, f'{run.step} of {total}', verdict,
                 'not measured' if knn is None else f'{100 * knn:.1f}',
                 'not logged' if speed is None else f'{speed:.0f}'])
  return Table(['run', 'state', 'steps', 'collapsed', 'held-out kNN top-1, %', 'images/s'],
               rows, [])


def _scores(found: Sequence[compare.Setting]) -> dict[str, Any]:
  """Held-out kNN of every setting, the measured tables, and the published numbers."""
  rows, measured = [], []
  for setting in found:
    knn = [100 * value for run in setting.runs if (value := run.last('knn/top1')) is not None]
    seeds = ', '.join(str(run.config['seed']) for run in setting.runs)
    rows.append([setting.name, seeds, tables.mean_and_spread(knn) if knn else 'not measured'])
    measured += [(setting.name, table) for table in _measured(setting)]
  beside = {}
  for setting in found:
    for entry, differences in published.beside(setting.runs[0].config):
      beside.setdefault((entry.score, entry.source), (entry, differences))
  return dict(
      held_out=Table(['setting', 'seeds', 'held-out kNN top-1, last value, %'], rows, []),
      measured=measured, command='' if measured or not found else _evaluate(found[0].runs[0]),
      published=Table(
          ['published', 'how it was obtained', 'source', 'this run differs in'],
          [[entry.score, entry.protocol, entry.source, '; '.join(differences) or 'none']
           for entry, differences in beside.values()], []))


def _measured(setting: compare.Setting) -> list[Table]:
  """A table per kind of evaluation, over the seeds that have it."""
  kinds: dict[tuple, list] = {}
  notes: dict[tuple, list[str]] = {}
  for run in setting.runs:
    for folder, results in run.evaluations:
      kind = (folder.name, results['dataset'], results['step'],
              *((encoder, *scores) for encoder, scores in results['encoders'].items()))
      kinds.setdefault(kind, []).append(results)
      if run.checkpoints and results['step'] != run.checkpoints[-1]:
        notes.setdefault(kind, []).append(
            f'{folder} is of step {results["step"]}, not of the last checkpoint '
            f'({run.checkpoints[-1]}).')
  found = [(tables.scores(results), notes.get(kind, [])) for kind, results in kinds.items()]
  return [table._replace(notes=table.notes + more) for table, more in found]


def _evaluate(run: Run) -> str:
  """The command that judges a run."""
  return shlex.join(['python', '-m', 'experiments.evaluate',
                     '--config=experiments/configs/eval/linear.py',
                     f'--checkpoint={run.folder}', f'--workdir={run.folder / "linear"}'])


def _effect(effect: compare.Effect) -> dict[str, Any]:
  rows = [[compare.shown(value), tables.mean_and_spread(scores), str(len(scores))]
          for value, scores in effect.rows]
  if effect.spread is None:
    verdict = 'No setting has two seeds, so this cannot be told from chance.'
  else:
    ratio = effect.span / max(effect.spread, 1e-9)
    verdict = (f'Seeds of one setting spread by {effect.spread:.1f}: the span is '
               f'{ratio:.1f} times that.')
  if not effect.balanced:
    verdict += ' Other keys change along with it: read it with care.'
  return dict(key=effect.key, span=f'{effect.span:.1f}', verdict=verdict,
              table=Table(['value', 'held-out kNN top-1, %', 'runs'], rows, []))


def _differences(runs, paper) -> Table:
  started = [run for run in runs if run.config]
  if len(started) == 1:
    ours, theirs = assembly.flat(started[0].config), assembly.flat(paper)
    rows = [[key, compare.shown(theirs.get(key, compare.ABSENT)),
             compare.shown(ours.get(key, compare.ABSENT))]
            for key in sorted({*ours, *theirs})
            if ours.get(key) != theirs.get(key) and (ours.get(key), theirs.get(key)) != (None, {})]
    return Table(['key', "the paper's ImageNet run (default.py)", 'this run'], rows, [])
  return Table(['key', *(run.name for run in started)],
               [[key, *map(compare.shown, values)]
                for key, values in compare.differing(started).items()], [])


def _chart(chart: Chart, runs: Sequence[Run]) -> str:
  lines = []
  for number, run in enumerate(runs):
    for i, metric in enumerate(chart.metrics):
      if metric == 'one_minus_tau':
        steps, values = run.series('train/tau')
        values = [1 - value for value in values]
      else:
        steps, values = run.series(metric)
      lines.append(figures.Line(number, steps, [chart.scale * value for value in values],
                                faint=i > 0))
  return figures.curves(chart.title, lines, top=chart.top, logarithmic=chart.logarithmic)


def _views(run: Run) -> str:
  path = run.folder / pictures.VIEWS
  return pictures.embedded(path) if path.is_file() else ''


def _pictures(run: Run, images: int, number: int, pictured: int) -> dict[str, Any]:
  """Neighbours and map, or in `missing` why there are none."""
  empty = dict(missing='', neighbours=[], chart='', picture='', count=0, no_map='')
  if not run.checkpoints:
    return empty | dict(missing='There is no checkpoint yet.')
  if not images:
    return empty | dict(missing=(
        f'Not drawn: the first {pictured} runs have these pictures; --pictured=N draws more.'
        if number >= pictured else 'Left out by --images=0.'))
  try:
    found = sample.draw(run, images)
  except (InputError, OSError) as error:
    return empty | dict(missing=f'The images could not be encoded: {error}')
  drawn = empty | dict(neighbours=_neighbours(found), count=len(found.images))
  try:
    places = pictures.positions(found.embeddings)
  except InputError as error:
    return drawn | dict(no_map=str(error))
  labels = found.labels
  return drawn | dict(
      picture=pictures.picture_map(found.images, places),
      chart='' if labels is None else figures.points(f'classes, run {number + 1}', places, labels))


def _neighbours(found: pictures.Sample) -> list[Neighbours]:
  queries = pictures.examples(found.labels, len(found.images), QUERIES)
  caption: Callable[[int], str] = lambda row: (
      '' if found.labels is None else f'class {found.labels[row]}')
  mark = lambda query, row: '' if found.labels is None else (
      'right' if found.labels[row] == found.labels[query] else 'wrong')
  return [Neighbours(pictures.tile(found.images[query]), caption(query),
                     [(pictures.tile(found.images[row]), caption(row), mark(query, row))
                      for row in rows])
          for query, rows in zip(queries, pictures.nearest(found.embeddings, queries, NEIGHBOURS))]


def _times(run: Run) -> list[tuple[str, str, float]]:
  """(part, time, share in percent) of what the run has logged; empty for older runs."""
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
      digest = checkpoint.read_meta(run.folder, step)['digests']['online'][:12]
    except InputError:
      digest = 'damaged'
    rows.append([str(step), f'{step / run.resolved["steps_per_epoch"]:.1f}' if run.resolved else '',
                 f'{100 * knn[step]:.1f}' if step in knn else 'not measured',
                 f'{size / 2 ** 20:.1f}', digest])
  return Table(['step', 'epoch', 'held-out kNN top-1, %', 'MiB', 'sha256 of the online network'],
               rows, [])


def _how_to_load(run: Run) -> str:
  if not (run.checkpoints and run.config):
    return ''
  size = run.config['data']['image_size']
  return (f'import byol_jax\n\nencoder = byol_jax.load_encoder({str(run.folder)!r})'
          f'  # the newest; step={run.checkpoints[0]} for that one\n'
          f'embeddings = encoder(images)  # floats [B, {size}, {size}, 3] in [0, 1] -> [B, D]')
