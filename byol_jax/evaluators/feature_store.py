"""Features on disk, so that each encoder sees each image once for all evaluations.

A file holds the features of one split and says what they are of: the digest of the encoder,
the data set and how its images are prepared. The name of the file is the hash of that text.
"""

from collections.abc import Callable, Mapping
import hashlib
import json
from typing import Any
import zipfile

from etils import epath
import numpy as np

from byol_jax import parallel
from byol_jax.evaluators import Features


def load_or_make(folder: epath.Path, description: Mapping[str, Any],
                 make: Callable[[], tuple[Features, list[str]]]) -> tuple[Features, list[str]]:
  """The features that `description` is of, from the folder or made and kept there.

  In a job of several processes all call it, and the first one's folder decides.

  Args:
    folder: of the files; made where it does not exist.
    description: JSON values, of everything that the features depend on.
    make: gives the features, and the names of images that could not be read.

  Returns:
    What `make` gives, or gave when the file was written. A damaged file is made again.
  """
  text = json.dumps(description, sort_keys=True)
  path = folder / f'{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz'
  found = _read(path, text) if parallel.is_first_process() else None
  if parallel.from_first_process(int(found is not None)):
    # The other processes trust what the first one could read.
    return found or _read(path, text)
  features, left_out = make()
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
      labels = arrays.get('labels')
      features = Features(arrays['embeddings'], labels, arrays['sample_id'])
      return features, arrays['left_out'].tolist()
  except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
    parallel.say(f'WARNING {path} cannot be used ({error}); its features are extracted again.')
    return None


def _write(path: epath.Path, text: str, features: Features, left_out: list[str]) -> None:
  """The file appears under its name when it is whole."""
  arrays = dict(embeddings=features.embeddings, sample_id=features.sample_id,
                description=np.array(text), left_out=np.array(left_out, str))
  if features.labels is not None:
    arrays['labels'] = features.labels
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'{path.name}.partial')
  with partial.open('wb') as file:
    np.savez(file, **arrays)
  partial.replace(path)
