"""The checkpoint that becomes of weights from elsewhere."""

from collections.abc import Callable, Mapping
import hashlib
import os
from typing import Any

from byol_jax import checkpoint, files
from byol_jax.train_step import TrainState

# Of the images of an encoder from elsewhere, in pixels; memory would not hold much larger ones.
LARGEST_SIDE = 4096


def write(workdir: str | os.PathLike, take_state: Callable[[], TrainState],
          meta: Mapping[str, Any]) -> None:
  """Saves a state as the only checkpoint of a workdir.

  Args:
    workdir: is made where it does not exist.
    take_state: gives the state away. Orbax copies it before it begins to write; where
      nobody else holds the state, its memory is free from then on.
    meta: as in `checkpoint.save`.

  Raises:
    InputError: the checkpoint could not be written.
  """
  with checkpoint.saving(files.writable_folder(workdir), keep_last=1, keep_best=1
                         ) as checkpoints:
    checkpoint.save(checkpoints, take_state(), meta, {})


def sha256(path: str | os.PathLike) -> str:
  """The digest of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
