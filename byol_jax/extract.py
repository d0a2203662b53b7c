"""A folder of images -> their embeddings, in one file, for those who write no code."""

from collections.abc import Iterator, Mapping
import contextlib
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from byol_jax import assembly, checkpoint, evaluate, files, input_pipeline, parallel
from byol_jax.datasets import Shards, image_folder
from byol_jax.errors import InputError
from byol_jax.evaluators import Features, features


class Extracted(NamedTuple):
  """What was written.

  output: the file.
  embedded: images in it.
  size: of an embedding.
  unreadable: names of the files that end like images and are none.
  other_files: files of other endings, or with a dot before their names or their folders'.
  """

  output: str
  embedded: int
  size: int
  unreadable: tuple[str, ...]
  other_files: int


def extract(pretrained: str | os.PathLike, images: str | os.PathLike, output: str | os.PathLike,
            *, step: int | None = None, batch_size: int = 64) -> Extracted:
  """Writes the embeddings of all images below a folder.

  The images are resized and cropped as for an evaluation: the middle square that the
  checkpoint's config says.

  Args:
    pretrained: workdir of a pretraining run, or of a conversion.
    images: folder of image files, at any depth.
    output: an .npz: `names` [N], the paths below the folder in their order; `embeddings`
      float32 [N, D]; `unreadable`, the names that were skipped; `other_files` [], a count;
      `digest`, the sha256 of the online network; `step`.
    step: of the checkpoint; the newest sound one where None.
    batch_size: images encoded at once.

  Raises:
    InputError: no checkpoint, no folder, no readable image, or the file cannot be written.
  """
  if not os.fspath(output).endswith('.npz'):
    raise InputError(f'{output} must end in .npz (--output).')
  folder = os.path.expanduser(os.fspath(images)).rstrip('/')
  with _writing(output):
    files.check_writable(parallel.folder(output))
  encoder = evaluate.load_encoder(pretrained, step)
  meta = checkpoint.read_meta(pretrained, step)
  paths, broken = _images(folder)
  found, skipped = embed(encoder, meta['config']['data'], paths, batch_size)
  name = lambda path: str(path)[len(folder) + 1:]
  unreadable = tuple(sorted(map(name, [*paths[sorted(skipped)], *broken])))
  result = Extracted(os.fspath(output), len(found.sample_id), encoder.embedding_size, unreadable,
                     image_folder.other_files(folder))
  with _writing(output), files.atomic_write(parallel.folder(output), 'wb') as file:
    np.savez(file, names=np.array(list(map(name, paths[found.sample_id]))),
             embeddings=found.embeddings, unreadable=np.array(unreadable, str),
             other_files=np.array(result.other_files), digest=np.array(meta['digests']['online']),
             step=np.array(meta['step']))
  return result


def embed(encoder: evaluate.Encoder, data: Mapping[str, Any], paths: np.ndarray, batch_size: int
          ) -> tuple[Features, set[int]]:
  """Embeddings of image files, prepared as for an evaluation.

  Args:
    encoder: of `evaluate.load_encoder`.
    data: the `data` section of the checkpoint's config.
    paths: object [N] of str.
    batch_size: images encoded at once.

  Returns:
    The features, whose ids are places in `paths`, and the places of files that are no images.
  """
  data = assembly.plain(assembly.completed_data(data))
  skipped = set()
  batches = input_pipeline.evaluation_batches(
      image_folder.stream(paths, None, 0, Shards()), image_size=data['image_size'],
      share=data['center_share'], order=data['center_order'], batch_size=batch_size,
      shards=Shards(), workers=data['workers'], unreadable=skipped.update)
  views = assembly.center_views(data)
  found = features.extract(lambda variables, batch: encoder.encode(variables, views(batch)),
                           encoder.variables, batches, batch_size=batch_size,
                           devices=jax.local_devices())
  return found, skipped


def _images(folder: str) -> tuple[np.ndarray, list[str]]:
  """The paths of the images, and those that are links to nothing."""
  if not parallel.folder(folder).is_dir():
    raise InputError(f'{folder}: no such folder (--images).')
  paths = image_folder.images(folder)
  there = np.array([parallel.in_object_store(path) or os.path.exists(path) for path in paths])
  return paths[there], list(paths[~there])


@contextlib.contextmanager
def _writing(output: str | os.PathLike) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise InputError(f'{output} cannot be written ({error}); give another --output.') from error
