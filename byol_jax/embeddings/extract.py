"""Writes the embeddings of a folder of images into one file, without writing code."""

from collections.abc import Iterator, Mapping
import contextlib
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import build, checkpoint, files
from byol_jax.config import plain
from byol_jax.encoder import Encoder, load_encoder
from byol_jax.errors import InputError
from byol_jax.evaluation import features
from byol_jax.evaluation.contract import Features
from byol_jax.input_pipeline import folders, listed_files
from byol_jax.input_pipeline.records import Shards


class Extracted(NamedTuple):
  """What was written.

  output: the file.
  embedded: number of images in it.
  size: length of an embedding.
  unreadable: {name: why} for the files named like images that cannot be read.
  left_out: a line about the files not named like images; '' if there are none.
  """

  output: str
  embedded: int
  size: int
  unreadable: Mapping[str, str]
  left_out: str


def extract(pretrained: str | os.PathLike, images: str | os.PathLike, output: str | os.PathLike,
            *, step: int | None = None, batch_size: int = 64) -> Extracted:
  """Writes the embeddings of all images below a folder.

  The images are resized and cropped as for an evaluation, to the centre square set in the
  checkpoint's config.

  Args:
    pretrained: workdir of a pretraining run, or of a conversion.
    images: folder of image files, at any depth.
    output: an .npz: `names` [N], the paths below the folder in order; `embeddings`
      float32 [N, D]; `unreadable`, the names that were skipped, and `reasons`, why; `other_files`
      [], the number of files not named like images; `digest`, the sha256 of the
      online network; `step`.
    step: step of the checkpoint; the newest valid one if None.
    batch_size: images encoded at once.

  Raises:
    InputError: there is no checkpoint, folder or readable image, or the output cannot be written.
  """
  if not os.fspath(output).endswith('.npz'):
    raise InputError(f'{output} must end in .npz (--output).')
  folder = os.path.expanduser(os.fspath(images)).rstrip('/')
  with _writing(output):
    files.check_writable(files.folder(output))
  encoder = load_encoder(pretrained, step)
  meta = checkpoint.read_meta(pretrained, step)
  listing, paths, broken = _images(folder)
  found, skipped = embed(encoder, meta['config']['data'], paths, batch_size)
  name = lambda path: str(path)[len(folder) + 1:]
  unreadable = {str(paths[row]): reason for row, reason in skipped.items()} | dict.fromkeys(
      broken, 'a link to a file that is not there')
  unreadable = {name(path): unreadable[path] for path in sorted(unreadable)}
  result = Extracted(os.fspath(output), len(found.sample_id), encoder.embedding_size, unreadable,
                     listing.left_out())
  with _writing(output), files.atomic_write(files.folder(output), 'wb') as file:
    np.savez(file, names=np.array(list(map(name, paths[found.sample_id]))),
             embeddings=found.embeddings, unreadable=np.array(list(unreadable), str),
             reasons=np.array(list(unreadable.values()), str),
             other_files=np.array(sum(listing.others.values())),
             digest=np.array(meta['digests']['online']), step=np.array(meta['step']))
  return result


def embed(encoder: Encoder, data: Mapping[str, Any], paths: np.ndarray, batch_size: int
          ) -> tuple[Features, dict[int, str]]:
  """Embeddings of image files, prepared as for an evaluation.

  Args:
    encoder: from `load_encoder`.
    data: the `data` section of the checkpoint's config.
    paths: object [N] of str.
    batch_size: images encoded at once.

  Returns:
    The features, whose ids are indices into `paths`, and {index: why} for unreadable files.

  Raises:
    InputError: no file can be read; the message gives the reason for the first.
  """
  data = plain(data)
  # Batches are padded to the batch size, so a few images do not need a large one.
  batch_size, skipped = min(batch_size, len(paths)), {}
  files = listed_files.stream(paths, None, Shards(),
                              upright=data['options'].get('exif_orientation', True))
  batches = files.evaluation_batches(
      image_size=data['image_size'], share=data['center_share'],
      order=data['center_order'], batch_size=batch_size, shards=Shards(), workers=data['workers'],
      unreadable=lambda rows: skipped.update((row, files.reason(row)) for row in rows))
  views = build.center_views(data, files.evaluation_form)
  try:
    found = features.extract(lambda variables, batch: encoder.encode(variables, views(batch)),
                             encoder.variables, batches, batch_size=batch_size,
                             devices=jax.local_devices())
  except InputError as error:
    if skipped:
      others = len(paths) - 1
      more = (f', nor can the {others} others' if others > 1 else ', nor can the other one') * (
          others > 0)
      raise InputError(f'{files.unreadable(min(skipped))}{more}.') from error
    raise
  return found, skipped


def _images(folder: str) -> tuple[folders.Listing, np.ndarray, list[str]]:
  """The files of a folder, the paths of its images, and its broken links."""
  if not files.folder(folder).is_dir():
    raise InputError(f'{folder}: no such folder (--images).')
  listing = folders.read(folder)
  paths = listing.paths
  there = np.array([files.in_object_store(path) or os.path.exists(path) for path in paths])
  return listing, paths[there], list(map(str, paths[~there]))


@contextlib.contextmanager
def _writing(output: str | os.PathLike) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise InputError(f'{output} cannot be written ({error}); give another --output.') from error
