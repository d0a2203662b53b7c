"""Writes and reads the results of evaluations in a folder: results.json and a table."""

from collections.abc import Mapping, Sequence
import itertools
import json
import os
from typing import Any

from etils import epath

from byol_jax import files
from byol_jax.config import MAY_CHANGE, differing_keys, flat
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.plots import tables, titles

RESULTS = 'results.json'
# Number of differing keys that an error names.
NAMED = 10
# Keys that a table or a page needs.
KEYS = ('encoders', 'step', 'seed', 'digest', 'dataset', 'images', 'chance', 'test_split_reads')


def write(workdir: epath.Path, results: Mapping[str, Any]) -> dict[str, Any]:
  """Writes results.json and the table results.md; returns the content of results.json.

  Existing results of other evaluators on the same encoders and data are kept.
  """
  results = _with_earlier(workdir, results)
  for name, text in ((RESULTS, json.dumps(results, indent=2) + '\n'),
                     ('results.md', tables.markdown(tables.scores([results])))):
    with files.atomic_write(workdir / name) as file:
      file.write(text)
  return results


def read(workdir: str | os.PathLike) -> dict[str, Any]:
  """Reads what `evaluate` wrote to a workdir.

  Raises:
    InputError: there are no results, or part of what `evaluate` writes is missing.
  """
  path = files.folder(workdir) / RESULTS
  if not path.exists():
    raise InputError(f'{path} does not exist; give the --workdir of an evaluation.')
  try:
    found = json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f'{path} is damaged ({error}); remove it and evaluate again.') from error
  if problem := lacks(found):
    raise InputError(f'{path} is damaged: {problem}; remove it and evaluate again.')
  return found


def lacks(found: Any) -> str:
  """What is missing in the content of a results.json, 'it has no ...'; '' for nothing.

  Raises:
    InputError: an evaluator cannot be found in this installation.
  """
  if not isinstance(found, dict):
    return 'it holds no results'
  images, encoders = found.get('images'), found.get('encoders')
  missing = [key for key in KEYS if key not in found]
  missing += [f'images.{split}' for split in ('train', 'validation', 'test')
              if not (isinstance(images, dict) and isinstance(images.get(split), int))]
  if not isinstance(encoders, dict) or not encoders:
    missing.append('encoders')
  missing += [] if missing else _missing_scores(encoders)
  return f'it has no {missing[0]!r}' if missing else ''


def _missing_scores(encoders: Mapping[str, Any]) -> list[str]:
  """The metrics that an encoder lacks but the first one has, or that an evaluator must return."""
  first, missing = next(iter(encoders.values())), []
  if not isinstance(first, dict) or not first:
    return [f'encoders.{next(iter(encoders))}']
  for encoder, row in encoders.items():
    for evaluator, scores in first.items():
      own = row.get(evaluator) if isinstance(row, dict) else None
      place = f'encoders.{encoder}.{evaluator}'
      if not (isinstance(own, dict) and isinstance(scores, dict)):
        missing.append(place)
        continue
      wanted = titles.metrics(evaluator, scores)
      missing += [f'{place}.{metric}' for metric in wanted
                  if not isinstance(own.get(metric), int | float)]
      if not titles.main_metrics(evaluator, scores):
        missing.append(f'{place}.{titles.main_metric(evaluator, scores)}')
  return missing


def read_seeds(workdirs: Sequence[str | os.PathLike]) -> list[dict[str, Any]]:
  """Reads what `evaluate` wrote to the workdirs of evaluations that differ only in the seed.

  Raises:
    InputError: two of them differ in something else, so that their mean would have no meaning, or
      two evaluate the same network.
  """
  found = [read(workdir) for workdir in workdirs]
  for number, (workdir, one) in enumerate(zip(workdirs, found)):
    for before, other in zip(workdirs[:number], found):
      if os.path.realpath(before) == os.path.realpath(workdir):
        raise InputError(f'{workdir} is given twice, the first time as {before}; '
                         'give each evaluation once.')
      if _networks(one) == _networks(other):
        raise InputError(f'The evaluations of {before} and {workdir} use the same networks '
                         f'(seed {one["seed"]}, sha256 {str(one["digest"])[:12]}); give one '
                         'evaluation of each seed.')
    if differing := differing_keys(kind(found[0]), kind(one)):
      raise InputError(f'The evaluations of {workdirs[0]} and {workdir} differ in more than the '
                       'seed:\n  ' + '\n  '.join(differing[:NAMED]) +
                       f'\n  ({len(differing) - NAMED} more)' * (len(differing) > NAMED) +
                       '\nGive evaluations that differ in nothing else.')
  return found


def _networks(found: Mapping[str, Any]) -> tuple[Any, ...]:
  """What identifies the networks of an evaluation."""
  # Without the pretrained encoder, the other encoders are what is evaluated.
  own = None if 'pretrained' in found['encoders'] else found.get('config', {}).get('seed')
  return found['digest'], own


def kind(found: Mapping[str, Any]) -> dict[str, Any]:
  """What the results of several seeds have in common: data, pretraining, evaluators, options."""
  pretraining = {key: value for key, value in flat(found.get('pretraining', {})).items()
                 if key != 'seed' and not key.startswith(MAY_CHANGE)}
  options = lambda scores: {key: value for key, value in scores.get('options', {}).items()
                            if key != 'seed'}
  return dict({key: found[key] for key in ('dataset', 'images', 'step')}, pretraining=pretraining,
              encoders={encoder: {evaluator: options(scores) for evaluator, scores in row.items()}
                        for encoder, row in found['encoders'].items()})


def _with_earlier(workdir: epath.Path, results: Mapping[str, Any]) -> dict[str, Any]:
  """The results, with those of other evaluators on the same encoders and data in the workdir.

  Earlier results of something else are moved aside.
  """
  path = workdir / RESULTS
  if not path.exists():
    return dict(results)
  try:
    earlier = read(workdir)
  except InputError:
    earlier = {}
  if _evaluated(earlier) == _evaluated(results):
    return dict(results, encoders={name: {**earlier['encoders'][name], **row}
                                   for name, row in results['encoders'].items()})
  others = (workdir / f'results_{number}.json' for number in itertools.count())
  kept = path.rename(next(other for other in others if not other.exists()))
  parallel.print_once(
      f'The earlier results in {workdir} are of other encoders or data; moved to {kept}')
  return dict(results)


def _evaluated(found: Mapping[str, Any]) -> list[Any]:
  """What was evaluated: the encoders and the images, independent of the evaluators."""
  encoders, config = list(found.get('encoders', {})), found.get('config', {})
  # The other encoders do not depend on these.
  own = [config.get(key) for key, users in (('seed', {'random', 'supervised'}),
                                            ('supervised', {'supervised'}))
         if users & {*encoders}]
  return [[found.get(key) for key in ('digest', 'dataset', 'seed', 'content')],
          config.get('data'), encoders, own]
