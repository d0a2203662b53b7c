"""Writes the checkpoint of imported weights."""

from collections.abc import Callable, Mapping
import hashlib
import os
from typing import Any

from byol_jax import checkpoint, files
from byol_jax.train_step import TrainState

# Largest image size of an imported encoder, in pixels; much larger images do not fit in memory.
LARGEST_SIDE = 4096


def write(workdir: str | os.PathLike, take_state: Callable[[], TrainState],
          meta: Mapping[str, Any]) -> None:
  """Saves a state as the only checkpoint of a workdir.

  Args:
    workdir: created if it does not exist.
    take_state: returns the state and gives up its reference. Orbax copies the state before it
      writes; if there are no other references, its memory is freed then.
    meta: as in `checkpoint.save`.

  Raises:
    InputError: the checkpoint could not be written.
  """
  with checkpoint.saving(files.writable_folder(workdir), keep_last=1, keep_best=1
                         ) as checkpoints:
    checkpoint.save(checkpoints, take_state(), meta, {})


def sha256(path: str | os.PathLike) -> str:
  """The sha256 digest of a file."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
