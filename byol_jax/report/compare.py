"""Several runs beside each other: which keys differ, which runs are seeds of one setting,
and how much each key mattered."""

from collections.abc import Mapping, Sequence
import json
from typing import Any, NamedTuple

import numpy as np

from byol_jax import assembly
from byol_jax.report.runs import Run

SEED = 'seed'
ABSENT = '(absent)'


class Setting(NamedTuple):
  """Runs that differ in their seed only.

  name: the values of the keys in which the settings differ, the keys shortened.
  values: {key: value} of these.
  runs: one per seed.
  """

  name: str
  values: Mapping[str, Any]
  runs: list[Run]


class Effect(NamedTuple):
  """What a key does to a score.

  key: of the config.
  rows: (value, scores of the runs that have it).
  span: between the best and the worst mean.
  spread: standard deviation over seeds within the settings, pooled; None without two
    seeds of any setting.
  balanced: whether every value was run with the same values of all other keys.
  """

  key: str
  rows: list[tuple[Any, list[float]]]
  span: float
  spread: float | None
  balanced: bool


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
  """{key: its value in each run} for the config keys in which started runs differ."""
  configs = [assembly.flat(run.config) for run in runs if run.config]
  keys = sorted({key for config in configs for key in config})
  rows = {key: [config.get(key, ABSENT) for config in configs] for key in keys}
  return {key: values for key, values in rows.items()
          if any(value != values[0] for value in values)}


def settings(runs: Sequence[Run]) -> list[Setting]:
  """The started runs by what decides their result except the seed, in their order."""
  runs = [run for run in runs if run.config]
  keys = [key for key in differing(runs)
          if key != SEED and not key.startswith(assembly.MAY_CHANGE)]
  short = {key: key if sum(other.endswith('.' + key.split('.')[-1]) for other in keys) > 1
           else key.split('.')[-1] for key in keys}
  groups: dict[str, Setting] = {}
  for run in runs:
    config = assembly.flat(run.config)
    values = {key: config.get(key, ABSENT) for key in keys}
    name = '  '.join(f'{short[key]}={shown(value)}' for key, value in values.items())
    groups.setdefault(json.dumps(values), Setting(name, values, [])).runs.append(run)
  return list(groups.values())


def shown(value: Any) -> str:
  """A config value as a person writes it."""
  if isinstance(value, list):
    return '(' + ', '.join(map(shown, value)) + ')'
  return f'{value:g}' if isinstance(value, float) else str(value)


def score(run: Run) -> float | None:
  """Held-out kNN top-1 of the last checkpoint in percent, what runs are compared by."""
  value = run.last('knn/top1')
  return None if value is None or run.state != 'finished' else 100 * value


def effects(found: Sequence[Setting]) -> list[Effect]:
  """The effect of every key in which the settings differ on `score`, the largest first."""
  scored = [(setting.values, [value for run in setting.runs if (value := score(run)) is not None])
            for setting in found]
  scored = [(values, scores) for values, scores in scored if scores]
  keys = scored[0][0] if scored else ()
  result = []
  for key in keys:
    rows: dict[str, tuple[Any, list[float]]] = {}
    others: dict[str, list[str]] = {}
    for values, scores in scored:
      name = json.dumps(values[key])
      rows.setdefault(name, (values[key], []))[1].extend(scores)
      rest = {k: v for k, v in values.items() if k != key}
      others.setdefault(name, []).append(json.dumps(rest))
    if len(rows) > 1:
      means = [np.mean(scores) for _, scores in rows.values()]
      contexts = [sorted(context) for context in others.values()]
      result.append(Effect(key, list(rows.values()), float(max(means) - min(means)),
                           _spread([scores for _, scores in scored]),
                           all(context == contexts[0] for context in contexts)))
  return sorted(result, key=lambda effect: -effect.span)


def _spread(groups: Sequence[Sequence[float]]) -> float | None:
  """Pooled standard deviation within groups; None where no group has two members."""
  degrees = sum(len(group) - 1 for group in groups)
  if not degrees:
    return None
  squares = sum(np.sum((np.array(group) - np.mean(group)) ** 2) for group in groups)
  return float(np.sqrt(squares / degrees))
