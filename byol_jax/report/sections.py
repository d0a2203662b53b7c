"""Sections of the page about several runs: scores, published numbers and effects of keys."""

from collections.abc import Mapping, Sequence
import json
import shlex
from typing import Any

from byol_jax import plugins
from byol_jax.evaluation import results
from byol_jax.plots import pictures, published, tables
from byol_jax.plots.tables import Table
from byol_jax.report import compare
from byol_jax.report.runs import Run


def scores(found: Sequence[compare.Setting]) -> dict[str, Any]:
  """Held-out kNN of every setting, the measured tables, and the published numbers."""
  measured = [(f'{setting.name}, in {folder}' if setting.name else f'in {folder}', table)
              for setting in found for folder, table in _measured(setting)]
  without = [setting for setting in found if not _measured(setting)]
  return dict(held_out=_held_out(found), measured=measured, ranked=_ranked(found),
              without=[setting.name or 'the run' for setting in without],
              how=_evaluate(without[0].runs[0]) if without else '', published=_published(found))


def _held_out(found: Sequence[compare.Setting]) -> Table:
  rows, notes = [], []
  for setting in found:
    finished = {run.config['seed']: value for run in setting.runs
                if (value := compare.score(run)) is not None}
    notes += [f'Left out, not finished or without labels: {run.name}, step {run.step}.'
              for run in setting.runs if compare.score(run) is None]
    if len(finished) < sum(compare.score(run) is not None for run in setting.runs):
      notes.append(f'Several runs have the same seed, which is counted once: {setting.name}.')
    values = list(finished.values())
    rows.append([setting.name, ', '.join(map(str, finished)),
                 tables.mean_and_spread(values) if values else 'not measured'])
  return Table(['setting', 'seeds', 'held-out kNN top-1 of the last checkpoint, %'], rows, notes)


def _measured(setting: compare.Setting) -> list[tuple[str, Table]]:
  """A folder and a table for each kind of evaluation, over the seeds that have it."""
  kinds: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
  notes: dict[tuple[str, str], list[str]] = {}
  for run in setting.runs:
    for folder, found in run.evaluations:
      kind = str(folder.relative_to(run.folder)), json.dumps(results.kind(found), sort_keys=True)
      kinds.setdefault(kind, {})[found['seed']] = found
      if run.checkpoints and found['step'] != run.checkpoints[-1]:
        notes.setdefault(kind, []).append(
            f'{folder} is of step {found["step"]}, not of the last checkpoint '
            f'({run.checkpoints[-1]}).')
  measured = [(kind[0], tables.scores(list(by_seed.values())), notes.get(kind, []))
              for kind, by_seed in kinds.items()]
  return [(folder, table._replace(notes=table.notes + more)) for folder, table, more in measured]


def _ranked(found: Sequence[compare.Setting]) -> list[tuple[str, str]]:
  """(title, picture) of every ranked list, from the first run of each setting that has any."""
  pictured = []
  for setting in found:
    own = (_lists(run, setting.name) for run in setting.runs)
    pictured += next(filter(None, own), [])
  return pictured


def _lists(run: Run, setting: str) -> list[tuple[str, str]]:
  pictured = []
  for folder, found in run.evaluations:
    for encoder, rows in found['encoders'].items():
      path = folder / pictures.RANKED_FOLDER / encoder / pictures.RANKED_LISTS
      # There may be lists left from an earlier evaluation on other data.
      if path.is_file() and any(plugins.has(name, 'RETRIEVES') for name in rows):
        title = [setting] * bool(setting) + [str(folder.relative_to(run.folder)),
                                             tables.name_of(encoder, frozen=True)]
        pictured.append((', '.join(title), pictures.embedded(path)))
  return pictured


def _evaluate(run: Run) -> str:
  """How to evaluate a run: a command, or what is needed first."""
  if not run.checkpoints:
    return '# There is no checkpoint to evaluate yet.'
  config = 'experiments/configs/eval/linear.py'
  more = ''
  if not run.resolved['num_classes']:
    # The run's data have no labels, so a labelled set must be given.
    config = 'experiments/configs/eval/image_folder.py'
    more = ' --config.data.options.train=LABELLED --config.data.options.test=LABELLED_TEST'
  return shlex.join(['python', '-m', 'experiments.evaluate', f'--config={config}',
                     f'--checkpoint={run.folder}', f'--workdir={run.folder / "linear"}']) + more


def _published(found: Sequence[compare.Setting]) -> Table:
  """Every published number once, with the setting that differs least from it."""
  nearest: dict[tuple[str, str], tuple] = {}
  for setting in found:
    for entry, differences in published.beside(setting.runs[0].config):
      key = entry.score, entry.source
      if key not in nearest or len(differences) < len(nearest[key][1]):
        nearest[key] = entry, differences, setting.name
  several = len(found) > 1
  columns = ['published', 'how it was obtained', 'source', *['nearest setting'] * several,
             'which differs in' if several else 'this run differs in']
  return Table(columns, [[entry.score, entry.protocol, entry.source, *[name] * several,
                          '; '.join(differences) or 'none of epochs, batch, depth and width']
                         for entry, differences, name in nearest.values()], [])


def effect(found: compare.Effect) -> dict[str, Any]:
  """What the page says about a key."""
  rows = [[compare.shown(value.value), f'{value.score:.1f}', str(value.runs),
           f'{value.collapsed} of {value.runs}'] for value in found.values]
  return dict(key=found.key, span=f'{found.span:.1f} points' if rows else 'unknown',
              verdict=_verdict(found),
              table=Table(['value', 'held-out kNN top-1, %', 'runs', 'collapsed, also partly'],
                          rows, []))


def _verdict(found: compare.Effect) -> str:
  sentences = []
  if found.values:
    if found.spread is None:
      sentences.append('No setting has two seeds, so this may be chance.')
    elif not found.spread:
      sentences.append('All seeds of a setting gave the same score.')
    else:
      sentences.append(f'The spread over seeds of one setting is {found.spread:.1f}; the span is '
                       f'{found.span / found.spread:.1f} times that.')
  if found.apart:
    values = ', '.join(map(compare.shown, found.apart))
    sentences.append(f'Not compared: {values}. No runs with these values differ only in this key.')
  return ' '.join(sentences)
