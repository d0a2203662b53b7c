"""The table of a sweep: a row per point, with its logged scalars and evaluation results."""

from collections.abc import Mapping, Sequence
import csv
import json
import pathlib
from typing import Any

from byol_jax import files, metric_log
from byol_jax.errors import InputError
from byol_jax.evaluation import results
from byol_jax.plots import titles
from byol_jax.sweep import points as sweep

SCALARS = (
    'train/byol_loss', 'train/top1', 'knn/top1', 'embeddings/effective_rank', 'embeddings/rankme',
    'embeddings/largest_share', 'collapse/std', 'collapse/effective_rank',
    'time/images_per_second')


def rows(found: Sequence[sweep.Point], kept: Mapping[str, dict[str, Any]] = {}
         ) -> list[dict[str, Any]]:
  """A row per point: state, overrides, last scalars, all metrics of the evaluations.

  A metric is called 'pretrained/knn/top1', a fraction in [0, 1]; if two evaluations of a
  point have it, the second is prefixed with the name of its evaluation. Points whose digest is in
  `kept` have that row.

  Raises:
    InputError: the results of an evaluation are damaged.
  """
  table = []
  for point in found:
    if point.digest in kept:
      table.append(kept[point.digest])
      continue
    row = dict(point=point.digest, state=sweep.state(point), **sweep.listed(point.overrides))
    records = metric_log.read(point.folder) if point.folder.is_dir() else []
    row['step'] = records[-1]['step'] if records else 0
    for name in SCALARS:
      values = [record[name] for record in records if name in record]
      row[name] = values[-1] if values else None
    for stage in point.stages[1:]:
      if stage.result.exists():
        for name, value in _metrics(results.read(stage.result.parent)).items():
          row[f'{stage.name}/{name}' if name in row else name] = value
    table.append(row | dict(folder=str(point.folder)))
  return table


def _metrics(found: dict[str, Any]) -> dict[str, float]:
  """{'pretrained/knn/top1': 0.5} of all encoders and evaluators."""
  return {f'{encoder}/{evaluator}/{metric}': scores[metric]
          for encoder, row in found['encoders'].items() for evaluator, scores in row.items()
          for metric in titles.metrics(evaluator, scores)}


def finished(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """{digest: row} of the points that a table written by `write` has as done; {} without a file.

  Raises:
    InputError: the file is not such a table.
  """
  path = path.with_suffix('.json')
  if not path.exists():
    return {}
  try:
    return {row['point']: row for row in json.loads(path.read_text()) if row['state'] == 'done'}
  except (ValueError, TypeError, KeyError) as error:
    raise InputError(f'{path} is not the table of a sweep ({type(error).__name__}: {error}); name '
                     'another file.') from error


def write(found: Sequence[sweep.Point], path: pathlib.Path,
          kept: Mapping[str, dict[str, Any]] | None = None) -> list[dict[str, Any]]:
  """Writes the table as a .json and a .csv file; returns it.

  Args:
    found: the points.
    path: the files, without their suffix or with one of the two.
    kept: as for `rows`, for a table that outlives the folders of its points: it does not name
      them. Rows of other points stay in the table.
  """
  table = rows(found, kept or {})
  if kept is not None:
    digests = {point.digest for point in found}
    table = [{key: value for key, value in row.items() if key != 'folder'} for row in table]
    table += [row for digest, row in kept.items() if digest not in digests]
  columns = list(dict.fromkeys(name for row in table for name in row))
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path.with_suffix('.json')) as file:
    json.dump(table, file, indent=2)
  with files.atomic_write(path.with_suffix('.csv'), newline='') as file:
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    writer.writerows(table)
  return table
