"""Finds the images of an index that are nearest to a query image, without writing code."""

import os
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from byol_jax import checkpoint, files
from byol_jax.embeddings import extract
from byol_jax.encoder import load_encoder
from byol_jax.errors import InputError
from byol_jax.evaluation import ranking
from byol_jax.input_pipeline import file_kinds

NEEDED = ('names', 'embeddings', 'digest', 'step')
BLOCK_BYTES = 2 ** 28


class Index(NamedTuple):
  """The output of `extract`: names [N], embeddings float32 [N, D], and their network."""

  names: np.ndarray
  embeddings: np.ndarray
  digest: str
  step: int


class Hit(NamedTuple):
  """An image of the index and its cosine similarity to the query, in [-1, 1]."""

  name: str
  similarity: float


def search(pretrained: str | os.PathLike, index: str | os.PathLike, query: str | os.PathLike, *,
           count: int) -> list[Hit]:
  """Finds the `count` images nearest to the query by cosine similarity, nearest first.

  The query is prepared and encoded like the images of the index. Equally similar images
  keep the order of the index.

  Args:
    pretrained: workdir of the run whose encoder made the index.
    index: the .npz file from `extract`.
    query: an image file.
    count: number of images to find; all if the index has fewer.

  Raises:
    InputError: a file is missing, is not an index or an image, or the index is from another
      encoder.
  """
  found = read_index(index)
  meta = checkpoint.read_meta(pretrained, found.step)
  if meta['digests']['online'] != found.digest:
    raise InputError(f'{index} was not made by the encoder of {pretrained}, step '
                     f'{found.step}; give the right workdir as --checkpoint, or remake the index: '
                     'python -m experiments.extract.')
  path = os.path.expanduser(os.fspath(query))
  if not files.folder(path).exists():
    raise InputError(f'{query}: no such file (--query).')
  if files.folder(path).is_dir():
    raise InputError(f'{query} is a folder; --query takes one image file.')
  encoder = load_encoder(pretrained, found.step)
  try:
    features, _ = extract.embed(encoder, meta['config']['data'], np.array([path], object), 1)
  except InputError as error:
    raise InputError(f'--query: {error}') from error
  similarity = next(ranking.similarities(features.embeddings, found.embeddings,
                                         block_bytes=BLOCK_BYTES))[1][0]
  order = np.argsort(-similarity, kind='stable')[:count]
  return [Hit(str(found.names[row]), float(similarity[row])) for row in order]


def read_index(path: str | os.PathLike) -> Index:
  """Reads the output of `extract`.

  Raises:
    InputError: there is no such file, or it is not an index.
  """
  file = files.folder(path)
  if not file.exists():
    raise InputError(f'{path}: no such file (--index); make it: python -m experiments.extract.')
  kind = file_kinds.kind(file)
  if kind != file_kinds.NPZ:
    raise InputError(f'{path} is {kind}. --index takes the .npz that experiments.extract has '
                     'written.')
  try:
    with file.open('rb') as opened, np.load(opened) as arrays:
      names, embeddings, digest, step = (arrays[name] for name in NEEDED)
    found = Index(names, embeddings, str(digest), int(step))
    if embeddings.shape != (len(names), embeddings.shape[-1]) or not embeddings.size:
      raise ValueError(f'{len(names)} names and embeddings {embeddings.shape}')
  except (KeyError, ValueError, OSError, EOFError, TypeError, AttributeError, IndexError,
          zipfile.BadZipFile, zlib.error) as error:
    raise InputError(f'{path} is not an index written by experiments.extract, or it is damaged; '
                     'make it again: python -m experiments.extract.') from error
  return found
