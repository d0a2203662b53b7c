"""Compares several runs: which keys differ, which runs are seeds of one setting,
and how much each key mattered."""

import collections
from collections.abc import Mapping, Sequence
import json
from typing import Any, NamedTuple

import numpy as np

from byol_jax.config import MAY_CHANGE, deciding
from byol_jax.input_pipeline import locations
from byol_jax.report import diagnosis
from byol_jax.report.runs import Run

SEED = 'seed'
ABSENT = '(absent)'
FEW = 3


class Setting(NamedTuple):
  """Runs that differ only in their seed.

  name: the values of the keys in which the settings differ, with shortened keys; if there are
    more than FEW keys, only the values that are not the most frequent ones.
  values: {key: value} of these keys.
  runs: one run per seed.
  """

  name: str
  values: Mapping[str, Any]
  runs: list[Run]


class Value(NamedTuple):
  """One value of a key, over the settings in which it is compared.

  value: the value of the key.
  score: mean over these settings of the mean over their seeds.
  runs: number of finished runs in these settings.
  collapsed: how many of these runs have collapsed, fully or partly.
  """

  value: Any
  score: float
  runs: int
  collapsed: int


class Effect(NamedTuple):
  """The effect of a key on a score when all other keys are equal.

  key: a key of the config.
  values: the values that were run with all other keys equal.
  apart: the values that were not: other keys always change together with them.
  span: difference between the best and the worst score of `values`; 0 without any.
  spread: standard deviation over seeds within the settings, pooled; None without two
    seeds of any setting.
  """

  key: str
  values: list[Value]
  apart: list[Any]
  span: float
  spread: float | None


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
  """{key: its value in each run} for the config keys in which started runs differ."""
  configs = [deciding(run.config) for run in runs if run.config]
  keys = sorted({key for config in configs for key in config})
  rows = {key: [config.get(key, ABSENT) for config in configs] for key in keys}
  return {key: values for key, values in rows.items()
          if any(value != values[0] for value in values)}


def settings(runs: Sequence[Run]) -> list[Setting]:
  """Groups the started runs by everything that decides their result except the seed, in order."""
  runs = [run for run in runs if run.config]
  # A path without a default is the only key that tells which images were used.
  counting = {key for run in runs for key in locations.left_out(deciding(run.config))}
  keys = [key for key in differing(runs)
          if key != SEED and key in counting and not key.startswith(MAY_CHANGE)]
  short = {key: key if sum(other.endswith('.' + key.split('.')[-1]) for other in keys) > 1
           else key.split('.')[-1] for key in keys}
  configs = [deciding(run.config) for run in runs]
  found = [{key: config.get(key, ABSENT) for key in keys} for config in configs]
  usual = {key: collections.Counter(shown(values[key]) for values in found).most_common(1)[0][0]
           for key in keys} if len(keys) > FEW else {}
  groups: dict[str, Setting] = {}
  for run, values in zip(runs, found):
    named = [f'{short[key]}={shown(value)}' for key, value in values.items()
             if usual.get(key) != shown(value)]
    name = '  '.join(named) if named or not keys else 'the most frequent values'
    groups.setdefault(json.dumps(values), Setting(name, values, [])).runs.append(run)
  return list(groups.values())


def shown(value: Any) -> str:
  """A config value in the form that a person would write."""
  if isinstance(value, list):
    return '(' + ', '.join(map(shown, value)) + ')'
  return f'{value:g}' if isinstance(value, float) else str(value)


def score(run: Run) -> float | None:
  """Held-out kNN top-1 of the last checkpoint in percent; runs are compared by it."""
  value = run.last('knn/top1')
  return None if value is None or run.state != 'finished' else 100 * value


def effects(found: Sequence[Setting]) -> list[Effect]:
  """The effect on `score` of every key in which the settings differ, largest first.

  Only settings that differ in that key alone are compared. Each counts once, however many
  seeds it has.
  """
  scored = [setting for setting in found if any(score(run) is not None for run in setting.runs)]
  spread = _spread([_scores(setting) for setting in scored])
  keys = scored[0].values if scored else ()
  result = []
  for key in keys:
    # {values of the other keys: {value of this key: its setting}}.
    contexts: dict[str, dict[str, Setting]] = {}
    for setting in scored:
      rest = json.dumps({k: v for k, v in setting.values.items() if k != key})
      contexts.setdefault(rest, {})[json.dumps(setting.values[key])] = setting
    names = list(dict.fromkeys(name for context in contexts.values() for name in context))
    if len(names) < 2:
      continue
    compared = _compared(list(contexts.values()))
    values = [_value(json.loads(name), settings) for name, settings in compared.items()]
    apart = [json.loads(name) for name in names if name not in compared]
    means = [value.score for value in values]
    result.append(Effect(key, values, apart, max(means) - min(means) if means else 0., spread))
  return sorted(result, key=lambda effect: -effect.span)


def _compared(contexts: Sequence[Mapping[str, Setting]]) -> dict[str, list[Setting]]:
  """The settings of each value of a key, over the contexts in which all these values were run."""
  # The largest set of values of any context; on a tie, the set with more contexts.
  best: list[Mapping[str, Setting]] = []
  values: frozenset = frozenset()
  for wanted in {frozenset(context) for context in contexts if len(context) > 1}:
    holding = [context for context in contexts if wanted <= context.keys()]
    if (len(wanted), len(holding)) > (len(values), len(best)):
      best, values = holding, wanted
  return {name: [context[name] for context in best]
          for name in dict.fromkeys(name for context in best for name in context)
          if name in values}


def _value(value: Any, settings: Sequence[Setting]) -> Value:
  finished = [run for setting in settings for run in setting.runs if score(run) is not None]
  return Value(value, float(np.mean([np.mean(_scores(setting)) for setting in settings])),
               len(finished), sum(diagnosis.verdict(run) in (diagnosis.COLLAPSED, diagnosis.PARTLY)
                                  for run in finished))


def _scores(setting: Setting) -> list[float]:
  return [value for run in setting.runs if (value := score(run)) is not None]


def _spread(groups: Sequence[Sequence[float]]) -> float | None:
  """Pooled standard deviation within groups; None if no group has two members."""
  degrees = sum(len(group) - 1 for group in groups)
  if not degrees:
    return None
  squares = sum(np.sum((np.array(group) - np.mean(group)) ** 2) for group in groups)
  return float(np.sqrt(squares / degrees))
