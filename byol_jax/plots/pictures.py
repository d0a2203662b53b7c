"""Pictures of a run: augmented pairs, nearest neighbours and a map of embeddings."""

import base64
from collections.abc import Sequence
import io
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from byol_jax import files
from byol_jax.errors import InputError

VIEWS = 'views.png'
# Paths in the workdir of an evaluation: FOLDER/ENCODER/LISTS.
RANKED_FOLDER, RANKED_LISTS = 'retrieval', 'ranked_lists.png'
PAIRS_IN_A_ROW = 4
GUTTER = 8  # pixels
TILE = 64  # pixels, the longer side of a small picture
MAP_CELLS = 24  # small pictures along a side of the map
WHITE = 255
# Frames of a ranked list; their marks distinguish them without colours.
RIGHT, WRONG, QUERY = (0, 128, 80), (200, 40, 40), (90, 90, 90)
FRAME = 4  # pixels
LINE = 20  # pixels, height of a title


class Sample(NamedTuple):
  """Images and their embeddings.

  images: uint8 [N, side, side, 3], small.
  embeddings: float32 [N, D].
  labels: int32 [N]; None for unlabelled data.
  step: step of the checkpoint.
  class_names: names of the labels; () if they have none.
  """

  images: np.ndarray
  embeddings: np.ndarray
  labels: np.ndarray | None
  step: int
  class_names: tuple[str, ...] = ()


class RankedLine(NamedTuple):
  """A query and the first images of its ranked gallery.

  title: text above the images.
  query: uint8 [side, side, 3].
  images: uint8 [side, side, 3] each, in ranked order.
  right: for each image, whether it shows the query's identity.
  """

  title: str
  query: np.ndarray
  images: list[np.ndarray]
  right: list[bool]


def draw_views(path: str | pathlib.Path, view1: np.ndarray, view2: np.ndarray) -> None:
  """Writes augmented pairs side by side, some pairs in a row, as a PNG.

  Args:
    path: path of the PNG.
    view1: [N, H, W, 3] in [0, 1]; the first view of N images.
    view2: the second view of the same images.
  """
  side = view1.shape[1]
  # Integer factors keep the pixels of small images visible.
  side = side * max(1, 96 // side) if side <= 128 else 128
  pairs = [np.concatenate([_pixels(one, side), _pixels(two, side)], axis=1)
           for one, two in zip(np.asarray(view1), np.asarray(view2))]
  rows = -(-len(pairs) // PAIRS_IN_A_ROW)
  columns = min(len(pairs), PAIRS_IN_A_ROW)
  sheet = np.full((rows * (side + GUTTER) - GUTTER, columns * (2 * side + GUTTER) - GUTTER, 3),
                  WHITE, np.uint8)
  for i, pair in enumerate(pairs):
    row, column = divmod(i, PAIRS_IN_A_ROW)
    top, left = row * (side + GUTTER), column * (2 * side + GUTTER)
    sheet[top:top + side, left:left + 2 * side] = pair
  with files.atomic_write(files.folder(path), 'wb') as file:
    Image.fromarray(sheet).save(file, format='PNG')


def ranked_lists(lines: Sequence[RankedLine]) -> bytes:
  """A PNG: each query framed in gray, then its list, with ticks for right and crosses for wrong."""
  side = TILE + 2 * FRAME
  longest = max(len(line.images) for line in lines)
  width = max((longest + 1) * (side + GUTTER) + GUTTER, 640)
  sheet = Image.new('RGB', (width, len(lines) * (LINE + side + GUTTER)), (WHITE,) * 3)
  draw = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(12)
  for row, line in enumerate(lines):
    top = row * (LINE + side + GUTTER)
    draw.text((FRAME, top + 3), line.title, fill=(0, 0, 0), font=font)
    marks = [None, *line.right]
    for column, (image, right) in enumerate(zip([line.query, *line.images], marks)):
      # A gap separates the list from its query.
      left = column * (side + GUTTER) + GUTTER * (column > 0)
      colour = QUERY if right is None else RIGHT if right else WRONG
      draw.rectangle((left, top + LINE, left + side - 1, top + LINE + side - 1), fill=colour)
      sheet.paste(Image.fromarray(_resized(Image.fromarray(image), TILE)),
                  (left + FRAME, top + LINE + FRAME))
      if right is not None:
        _mark(draw, left + side - 18, top + LINE + side - 18, colour, right)
  buffer = io.BytesIO()
  sheet.save(buffer, format='PNG')
  return buffer.getvalue()


def _mark(draw: ImageDraw.ImageDraw, left: int, top: int, colour, right: bool) -> None:
  """Draws a white tick or cross on a corner in the frame's colour."""
  draw.rectangle((left, top, left + 17, top + 17), fill=colour)
  at = lambda *points: [(left + x, top + y) for x, y in points]
  strokes = ([at((4, 9), (8, 13), (14, 4))] if right
             else [at((4, 4), (13, 13)), at((4, 13), (13, 4))])
  for stroke in strokes:
    draw.line(stroke, fill=(WHITE,) * 3, width=2)


def nearest(embeddings: np.ndarray, queries: Sequence[int], count: int) -> np.ndarray:
  """The nearest images of each query by cosine similarity, without the query itself.

  Args:
    embeddings: [N, D].
    queries: Q row indices of `embeddings`.
    count: neighbours per query, at most N - 1.

  Returns:
    int [Q, count], row indices of `embeddings`, nearest first.
  """
  directions = unit_length(embeddings)
  similarity = directions[list(queries)] @ directions.T
  similarity[np.arange(len(queries)), list(queries)] = -np.inf
  return np.argsort(-similarity, axis=1, kind='stable')[:, :min(count, len(embeddings) - 1)]


def examples(labels: np.ndarray | None, total: int, count: int) -> list[int]:
  """Rows to show: the first image of each class, or evenly spread rows if there are no labels."""
  if labels is None:
    return sorted({int(row) for row in np.linspace(0, total - 1, count)})
  return [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:count]]


def positions(embeddings: np.ndarray) -> np.ndarray:
  """Maps embeddings [N, D] to [N, 2] by t-SNE on their directions (van der Maaten 2008).

  Raises:
    InputError: there are fewer than ten images, or all embeddings are the same.
  """
  # Imported here because it takes a second and only the map needs it.
  from sklearn import manifold

  if len(embeddings) < 10:
    raise InputError(f'{len(embeddings)} images are too few for a map; ten are needed.')
  directions = unit_length(embeddings)
  if directions.std(axis=0).max() < 1e-5:
    raise InputError('All embeddings are the same up to rounding, so there is nothing to map.')
  return manifold.TSNE(perplexity=min(30., (len(embeddings) - 1) / 3), init='pca',
                       random_state=0).fit_transform(directions)


def picture_map(images: np.ndarray, places: np.ndarray) -> str:
  """Small pictures [N, ...] at their positions [N, 2], one per cell of a grid, as a data URI."""
  low, high = places.min(axis=0), places.max(axis=0)
  cells = np.minimum((places - low) / np.maximum(high - low, 1e-9) * MAP_CELLS, MAP_CELLS - 1)
  side = TILE // 2
  canvas = np.full((MAP_CELLS * side, MAP_CELLS * side, 4), 0, np.uint8)
  # The first image of a cell is drawn last, so it stays visible.
  for image, (column, row) in reversed(list(zip(images, cells.astype(int)))):
    # The vertical axis points up, as in the chart of the same positions.
    top, left = (MAP_CELLS - 1 - row) * side, column * side
    canvas[top:top + side, left:left + side, :3] = _resized(Image.fromarray(image), side)
    canvas[top:top + side, left:left + side, 3] = 255
  return _data_uri(Image.fromarray(canvas))


def small(image: np.ndarray) -> np.ndarray:
  """An image [H, H, 3] in [0, 1] as uint8 with at most TILE pixels per side."""
  return _pixels(image, min(TILE, image.shape[0]))


def tile(image: np.ndarray) -> str:
  """A small image, uint8 [H, H, 3], as a data URI."""
  return _data_uri(Image.fromarray(image))


def embedded(path: pathlib.Path) -> str:
  """A PNG file as a data URI."""
  return 'data:image/png;base64,' + base64.b64encode(path.read_bytes()).decode()


def unit_length(vectors: np.ndarray) -> np.ndarray:
  """Divides each row of [N, D] by its length; zero rows stay zero."""
  vectors = np.asarray(vectors, np.float64)
  return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _pixels(image: np.ndarray, side: int) -> np.ndarray:
  """Converts an image in [0, 1] to uint8 [side, side, 3]."""
  return _resized(Image.fromarray(np.uint8(np.clip(image, 0, 1) * 255 + .5)), side)


def _resized(image: Image.Image, side: int) -> np.ndarray:
  larger = side >= image.height
  return np.asarray(image.resize(
      (side, side), Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS))


def _data_uri(image: Image.Image) -> str:
  buffer = io.BytesIO()
  image.save(buffer, format='PNG')
  return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()
