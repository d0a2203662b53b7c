"""Features on disk, so that each encoder sees each image once for all evaluations.

A file holds the features of one split and says what they are of: the digest of the encoder,
the data set and how its images are prepared. The name of the file is the hash of that text.
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

# To be raised when images come to be prepared or encoded otherwise.
FORMAT = 1
# Keys of `data` that leave the features alone.
WITHOUT_EFFECT = ('data.workers', 'data.resize', 'data.changed_files',
                  'data.options.cache_dir', 'data.options.download', 'data.options.shuffle_buffer')
# Keys that say which images are in a split, which the content of the split says itself.
SELECTING = ('data.virtual_shards', *(f'data.options.{key}' for key in (
    'train_split', 'validation_split', 'test_split', 'held_out', 'held_out_images',
    'held_out_share', 'held_out_per_class', 'validation_share', 'subset_share', 'subset_seed')))


def deciding(data: Mapping[str, Any]) -> dict[str, Any]:
  """The keys of a `data` section on which features depend besides the content of the split.

  The content says which images the split has, and with which labels; so the keys that select
  them are left out.

  Args:
    data: as 'data.options.subset_share': 1.0.
  """
  return {key: value for key, value in data.items() if key not in WITHOUT_EFFECT + SELECTING}


def load_or_make(folder: epath.Path, description: Mapping[str, Any],
                 make: Callable[[], tuple[Features, list[str]]]) -> tuple[Features, list[str]]:
  """The features that `description` is of, from the folder or made and kept there.

  In a job of several processes all call it; a file serves where all can read it.

  Args:
    folder: of the files; made where it does not exist.
    description: JSON values, of everything that the features depend on; `split` among them.
    make: gives the features, and the names of images that this process could not read.

  Returns:
    The features, and the names of all processes. A damaged file is made again.
  """
  text = json.dumps(dict(description, format=FORMAT), sort_keys=True)
  # What the first process sees of the data decides for all.
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
  """The content of a file; None where there is none that can be used."""
  if not path.exists():
    return None
  try:
    with path.open('rb') as file, np.load(file) as arrays:
      if str(arrays['description']) != text:
        raise ValueError('it is of other features')
      labels = arrays['labels'] if arrays['labelled'] else None
      features = Features(arrays['embeddings'], labels, arrays['sample_id'])
      return features, arrays['left_out'].tolist()
  # Damage shows as errors of many kinds, those of zipfile and zlib among them.
  except Exception as error:
    parallel.print_once(
        f'WARNING {path} cannot be used ({error}); its features are extracted again.')
    return None


def _write(path: epath.Path, text: str, features: Features, left_out: list[str]) -> None:
  """The file appears under its name when it is whole."""
  arrays = dict(embeddings=features.embeddings, sample_id=features.sample_id,
                description=np.array(text), left_out=np.array(left_out, str),
                labelled=np.array(features.labels is not None))
  if features.labels is not None:
    arrays['labels'] = features.labels
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.atomic_write(path, 'wb') as file:
    np.savez(file, **arrays)
