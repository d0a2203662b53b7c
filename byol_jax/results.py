"""The results of evaluations in a folder: results.json, and a table for readers."""

from collections.abc import Mapping, Sequence
import itertools
import json
import os
from typing import Any
import uuid

from etils import epath

from byol_jax import assembly, parallel
from byol_jax.errors import InputError
from byol_jax.report import tables

RESULTS = 'results.json'


def write(workdir: epath.Path, results: Mapping[str, Any]) -> dict[str, Any]:
  """Writes results.json and the table results.md; returns what the former holds.

  Results of other evaluators on the same encoders and data, which are there already, stay.
  """
  results = _with_earlier(workdir, results)
  for name, text in ((RESULTS, json.dumps(results, indent=2) + '\n'),
                     ('results.md', tables.markdown(tables.scores([results])))):
    partial = workdir / f'{name}.{uuid.uuid4().hex}.partial'
    partial.write_text(text)
    partial.replace(workdir / name)
  return results


def read(workdir: str | os.PathLike) -> dict[str, Any]:
  """What `evaluate` wrote into a workdir."""
  path = parallel.folder(workdir) / RESULTS
  if not path.exists():
    raise InputError(f'No {path}: give the --workdir of an evaluation.')
  try:
    found = json.loads(path.read_text())
    if not isinstance(found, dict):
      raise ValueError('it holds no results')
    return found
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); evaluate again.') from error


def read_seeds(workdirs: Sequence[str | os.PathLike]) -> list[dict[str, Any]]:
  """What `evaluate` wrote into workdirs, of evaluations that are alike but for the seed.

  Raises:
    InputError: two that are not; their mean would be of nothing.
  """
  found = [read(workdir) for workdir in workdirs]
  for workdir, one in zip(workdirs[1:], found[1:]):
    if differing := assembly.differing_keys(_kind(found[0]), _kind(one)):
      raise InputError(f'The evaluations of {workdirs[0]} and {workdir} differ in more than the '
                       'seed:\n  ' + '\n  '.join(differing) + '\nGive those of one kind only.')
  return found


def _kind(found: Mapping[str, Any]) -> dict[str, Any]:
  """What the results of several seeds have in common."""
  # How a fit ended is a result.
  options = lambda scores: [text for text in scores.get('differs_from_paper', [])
                            if not text.endswith('(converged)')]
  return dict({key: found[key] for key in ('dataset', 'images', 'step')}, encoders={
      name: {evaluator: options(scores) for evaluator, scores in row.items()}
      for name, row in found['encoders'].items()})


def _with_earlier(workdir: epath.Path, results: Mapping[str, Any]) -> dict[str, Any]:
  """The results, with those of other evaluators on the same encoders and data in the workdir.

  Earlier ones of something else are put aside.
  """
  path = workdir / RESULTS
  if not path.exists():
    return dict(results)
  try:
    earlier = read(workdir)
  except InputError:
    earlier = {}
  if _judged(earlier) == _judged(results):
    return dict(results, encoders={name: {**earlier['encoders'][name], **row}
                                   for name, row in results['encoders'].items()})
  others = (workdir / f'results_{number}.json' for number in itertools.count())
  kept = path.rename(next(other for other in others if not other.exists()))
  parallel.say(f'The results that were in {workdir} are of other encoders or data: see {kept}')
  return dict(results)


def _judged(found: Mapping[str, Any]) -> list[Any]:
  """What results are of: the encoders and the images, whatever the evaluators."""
  encoders, config = list(found.get('encoders', {})), found.get('config', {})
  # The other encoders do not depend on these.
  own = [config.get(key) for key, users in (('seed', {'random', 'supervised'}),
                                            ('supervised', {'supervised'}))
         if users & {*encoders}]
  return [[found.get(key) for key in ('digest', 'dataset', 'seed', 'content')],
          config.get('data'), encoders, own]
