"""Writes the ranked lists of a retrieval: a file with one line per query, and a picture of some."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import json
from typing import Any

from etils import epath
import numpy as np

from byol_jax import build, files
from byol_jax.distributed import parallel
from byol_jax.evaluation.ranking import Result
from byol_jax.input_pipeline import listed_files, loading
from byol_jax.input_pipeline.retrieval_lists import Roles
from byol_jax.plots import pictures

QUERIES = 'queries.jsonl'
# Number of images of a list that are drawn.
DRAWN = 10
# Number of images decoded at a time.
BATCH_SIZE = 256


def keep(result: Result, *, folder: epath.Path, loaders: Mapping[str, Callable[[], loading.Loader]],
         roles: Roles | None) -> None:
  """Writes queries.jsonl and ranked_lists.png; all processes of a job must call it.

  Args:
    result: the result of `evaluators.retrieval`.
    folder: folder for the files.
    loaders: () -> the loader, by the name of the split.
    roles: roles of the test split, if the data set has lists.
  """
  classes = loaders['test']().data.class_names
  if parallel.is_first_process():
    folder.mkdir(parents=True, exist_ok=True)
    text = ''.join(json.dumps(line) + '\n' for line in _lines(result, roles, classes))
    with files.atomic_write(folder / QUERIES) as file:
      file.write(text)
  rows = [(kind, row) for kind, chosen in examples(result).items() for row in chosen]
  if not rows:
    if parallel.is_first_process():
      # A picture of an earlier evaluation would show other lists.
      (folder / pictures.RANKED_LISTS).unlink(missing_ok=True)
    return
  nearest = result.ranked.nearest[:, :DRAWN]
  shown = {row: [place for place in nearest[row] if place >= 0] for _, row in rows}
  drawn = {split: _images(loaders[split](), ids, roles if split == 'test' else None)
           for split, ids in _needed(result, shown).items()}
  if not parallel.is_first_process():
    return
  lines = [pictures.RankedLine(
      _title(kind, result, row, roles, classes), drawn['test'][result.query[row]],
      [drawn[result.split][result.gallery[place]] for place in shown[row]],
      result.ranked.right[row, :len(shown[row])].tolist()) for kind, row in rows]
  with files.atomic_write(folder / pictures.RANKED_LISTS, 'wb') as file:
    file.write(pictures.ranked_lists(lines))


def examples(result: Result) -> dict[str, list[int]]:
  """Rows of the queries to draw: the best, the worst, and evenly spaced queries from the others.

  Best and worst are chosen by average precision; of equal queries, the lower rows are taken.
  """
  counted = np.flatnonzero(result.ranked.matches > 0)
  score = result.ranked.average_precision[counted]
  best = counted[np.argsort(-score, kind='stable')][:result.pictured]
  worst = counted[np.argsort(score, kind='stable')]
  worst = worst[~np.isin(worst, best)][:result.pictured]
  others = np.setdiff1d(counted, [*best, *worst])
  spread = others[np.linspace(0, len(others) - 1, min(result.pictured, len(others))).astype(int)]
  return {kind: rows.tolist() for kind, rows in (
      ('evenly chosen', spread), ('best', best), ('worst', worst))}


def _lines(result: Result, roles: Roles | None, classes: Sequence[str]
           ) -> Iterator[dict[str, Any]]:
  """The record of each query; scores are cosine similarities unless lists are re-ranked."""
  ranked = result.ranked
  identity = lambda label: classes[label] if classes else int(label)
  name = lambda number: int(number) if roles is None else roles.names[number]
  for row, number in enumerate(result.query):
    places = [place for place in ranked.nearest[row] if place >= 0]
    counted = bool(ranked.matches[row])
    yield dict(
        query=name(number), identity=identity(result.identity[row]),
        camera=None if roles is None else roles.cameras[number] or None,
        matches=int(ranked.matches[row]),
        average_precision=round(float(ranked.average_precision[row]), 6) if counted else None,
        first_match=int(ranked.first[row]) if counted else None,
        nearest=[name(result.gallery[place]) for place in places],
        nearest_identity=[identity(result.gallery_identity[place]) for place in places],
        right=ranked.right[row, :len(places)].tolist(),
        score=[round(float(score), 6) for score in ranked.score[row, :len(places)]])


def _title(kind: str, result: Result, row: int, roles: Roles | None, classes: Sequence[str]) -> str:
  label = classes[result.identity[row]] if classes else result.identity[row]
  camera = '' if roles is None else roles.cameras[result.query[row]]
  ranked = result.ranked
  return (f'{kind}: identity {label}{f", camera {camera}" if camera else ""}; average precision '
          f'{ranked.average_precision[row]:.2f}, matches: {ranked.matches[row]}, the first at '
          f'place {ranked.first[row]}')


def _needed(result: Result, shown: Mapping[int, list[int]]) -> dict[str, set[int]]:
  """The ids of the images to draw, by split."""
  found = {'test': {int(result.query[row]) for row in shown}}
  found.setdefault(result.split, set()).update(
      int(result.gallery[place]) for places in shown.values() for place in places)
  return found


def _images(loader: loading.Loader, ids: set[int], roles: Roles | None) -> dict[int, np.ndarray]:
  """{id: small image uint8 [side, side, 3]} as the encoder sees them; on every process.

  Files in lists are opened individually; other splits are read as a whole.
  """
  numbers = np.array(sorted(ids), np.int32)
  if roles is not None:
    # The ids of these images are places in `numbers`.
    loader = loader._replace(data=listed_files.stream(
        roles.names[numbers], None, loading.shards(loader.config),
        upright=loader.config['options'].get('exif_orientation', True)))
  views = build.center_views(loader.config, loader.data.evaluation_form)
  side = min(pictures.TILE, loader.config['image_size'])
  found, images = [np.zeros(0, np.int32)], [np.zeros((0, side, side, 3), np.uint8)]
  for batch in loader.evaluation_batches(BATCH_SIZE):
    sample_id = batch['sample_id'] if roles is None else numbers[batch['sample_id']]
    wanted = np.isin(sample_id, numbers)
    if wanted.any():
      found.append(sample_id[wanted])
      own = {name: array[wanted] for name, array in batch.items()}
      images.append(np.stack([pictures.small(view) for view in np.asarray(views(own))]))
  numbers, images = (parallel.gather_rows(np.concatenate(rows)) for rows in (found, images))
  return dict(zip(numbers.tolist(), images))

