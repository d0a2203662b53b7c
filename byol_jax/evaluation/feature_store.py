"""Stores features on disk, so that each encoder encodes each image once for all evaluations.

A file has the features of one split and a text that says where they come from: the digest of the
encoder, the data set and how its images are prepared. The file's name is the hash of that text.
"""

from collections.abc import Callable, Mapping
import hashlib
import json
from typing import Any

from etils import epath
import numpy as np

from byol_jax import files
from byol_jax.distributed import parallel, processes
from byol_jax.evaluation.contract import Features
from byol_jax.input_pipeline import splits

# To be increased when the preparation or encoding of images changes.
FORMAT = 1
# Keys of `data` that do not affect the features.
WITHOUT_EFFECT = ('data.workers', 'data.resize', 'data.changed_files',
                  'data.options.cache_dir', 'data.options.download', 'data.options.shuffle_buffer')
# Keys that select the images of a split; the digest of its content already covers these.
SELECTING = ('data.virtual_shards', *(f'data.options.{key}' for key in (
    'train_split', 'validation_split', 'test_split', *splits.SHARE, *splits.HELD_OUT,
    *splits.SUBSET)))


def deciding(data: Mapping[str, Any]) -> dict[str, Any]:
  """The keys of a `data` section on which features depend in addition to the split's content.

  The content determines the images and labels of the split, so the keys that select images are
  left out.

  Args:
    data: flat keys and values, such as 'data.options.subset_share': 1.0.
  """
  return {key: value for key, value in data.items() if key not in WITHOUT_EFFECT + SELECTING}


def load_or_make(folder: epath.Path, description: Mapping[str, Any],
                 make: Callable[[], tuple[Features, list[str]]]) -> tuple[Features, list[str]]:
  """Loads the features with this `description` from the folder, or makes and stores them.

  In a job of several processes, all of them must call it; a file is used if all can read it.

  Args:
    folder: folder of the files; made if it does not exist.
    description: everything that the features depend on, as JSON values; includes `split`.
    make: returns the features, and the names of images that this process could not read.

  Returns:
    The features, and the names from all processes. A damaged file is made again.
  """
  text = json.dumps(dict(description, format=FORMAT), sort_keys=True)
  # The first process's view of the data decides for all processes.
  text = processes.allgather_strings(text)[0]
  path = folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz'
  found = _read(path, text)
  if parallel.gather_rows(np.array([[found is not None]])).all():
    parallel.print_once(f'features of the {description["split"]} images are taken from {path}')
    return found
  features, left_out = make()
  left_out = sorted({name for names in processes.allgather_strings(json.dumps(left_out))
                     for name in json.loads(names)})
  if parallel.is_first_process():
    _write(path, text, features, left_out)
  parallel.barrier('features are stored')
  return features, left_out


def _read(path: epath.Path, text: str) -> tuple[Features, list[str]] | None:
  """Reads the content of a file; None if there is no usable file."""
  if not path.exists():
    return None
  try:
    with path.open('rb') as file, np.load(file) as arrays:
      if str(arrays['description']) != text:
        raise ValueError('it holds other features')
      labels = arrays['labels'] if arrays['labelled'] else None
      features = Features(arrays['embeddings'], labels, arrays['sample_id'])
      return features, arrays['left_out'].tolist()
  # A damaged file raises errors of many kinds, including those of zipfile and zlib.
  except Exception as error:
    parallel.print_once(
        f'WARNING {path} cannot be used ({error}); its features are extracted again.')
    return None


def _write(path: epath.Path, text: str, features: Features, left_out: list[str]) -> None:
  """Writes a file, which gets its final name when it is complete."""
  arrays = dict(embeddings=features.embeddings, sample_id=features.sample_id,
                description=np.array(text), left_out=np.array(left_out, str),
                labelled=np.array(features.labels is not None))
  if features.labels is not None:
    arrays['labels'] = features.labels
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path, 'wb') as file:
    np.savez(file, **arrays)
