"""What an evaluator measures, as declared by its module, and its titles in tables."""

from collections.abc import Mapping
import re
from typing import Any

from byol_jax import plugins
from byol_jax.errors import InputError


def title(evaluator: str) -> str:
  """The title of an evaluator in tables."""
  return getattr(plugins.load('evaluators', evaluator), 'TITLE', evaluator)


def check(evaluator: str) -> None:
  """Raises InputError unless an evaluator declares what it measures, as the contract requires."""
  known = plugins.constant('evaluators', evaluator, 'METRICS')
  main = plugins.constant('evaluators', evaluator, 'MAIN_METRIC')
  if main not in known:
    raise InputError(f'MAIN_METRIC of evaluator {evaluator!r} is {main!r}, which is not one of its '
                     f'METRICS, {", ".join(known)}; correct one of them.')


def check_scores(evaluator: str, row: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
  """Checks what an evaluator returned.

  Args:
    evaluator: name of the evaluator.
    row: the scores with the values of `describe`.
    scores: what `evaluate` returned.

  Raises:
    InputError: the main metric is missing, or a metric is not a fraction in [0, 1].
  """
  if not main_metrics(evaluator, row):
    raise InputError(f'Evaluator {evaluator!r} returned no {main_metric(evaluator, row)!r}, its '
                     f'MAIN_METRIC, but {", ".join(scores) or "nothing"}; correct its evaluate or '
                     'the constant.')
  for metric in metrics(evaluator, scores):
    if not 0 <= scores[metric] <= 1:
      raise InputError(f'Evaluator {evaluator!r} returned {metric} {scores[metric]}; metrics are '
                       'fractions in [0, 1].')


def metrics(evaluator: str, scores: Mapping[str, Any]) -> dict[str, str]:
  """{metric: title} for those METRICS of an evaluator that are in its scores, in order.

  Args:
    evaluator: name of the evaluator.
    scores: scores of a result.
  """
  found = {}
  for name, text in plugins.constant('evaluators', evaluator, 'METRICS').items():
    found |= {metric: text.format(*numbers) for metric in scores
              if (numbers := _numbers(name, metric)) is not None}
  return found


def main_metric(evaluator: str, scores: Mapping[str, Any]) -> str:
  """The name, as in METRICS, of the metric that represents a result."""
  return scores.get('metric') or plugins.constant('evaluators', evaluator, 'MAIN_METRIC')


def main_metrics(evaluator: str, scores: Mapping[str, Any]) -> list[str]:
  """The metrics of a result that `main_metric` stands for: one, or one for each number."""
  main = main_metric(evaluator, scores)
  return [metric for metric in scores if _numbers(main, metric) is not None]


def in_table(evaluator: str, scores: Mapping[str, Any]) -> dict[str, str]:
  """Those of `metrics` that the table of an evaluation shows."""
  beside = getattr(plugins.load('evaluators', evaluator), 'IN_TABLE', ())
  shown = {*main_metrics(evaluator, scores), *beside}
  return {metric: text for metric, text in metrics(evaluator, scores).items() if metric in shown}


def _numbers(name: str, metric: str) -> tuple[str, ...] | None:
  """The numbers that turn a name in METRICS into `metric`; None if it does not match."""
  match = re.fullmatch(re.escape(name).replace(r'\{\}', r'(\d+)'), metric)
  return match.groups() if match else None
