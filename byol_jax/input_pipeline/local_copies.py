"""Copies a data set's files to this host, for storage that is slower than the training.

Encoded images are copied unchanged. A copy is made only once and is also used by later runs, as
long as its size and time are those of the original.
"""

from collections.abc import Sequence
import concurrent.futures
import hashlib
import os
import pathlib
import shutil

from byol_jax.errors import InputError
from byol_jax.files import atomic_path, in_object_store, local_path, remove_abandoned

# Number of files that are copied at the same time.
AT_ONCE = 8


def copies(sources: Sequence[str], folder: str) -> dict[str, str]:
  """Copies files, which can be in object stores, into a local folder.

  Args:
    sources: paths without repetition.
    folder: target folder, made if it does not exist. Files of different folders do not collide.

  Returns:
    Path of the copy for each file.

  Raises:
    InputError: there is not enough space (the message has the numbers), or a file cannot be read
      or written.
  """
  import tensorflow as tf

  root = local_path(folder)
  targets = {file: _target(file, root) for file in sources}
  try:
    stats = {file: tf.io.gfile.stat(file) for file in sources}
    missing = [file for file in sources if not _is_copy(targets[file], stats[file])]
    for parent in {target.parent for target in targets.values()}:
      parent.mkdir(parents=True, exist_ok=True)
      # Before the free space is checked.
      remove_abandoned(parent)
    needed = sum(stats[file].length for file in missing)
    _check_room(needed, len(missing), root)
    if missing:
      print(f'Copying {len(missing)} files, {needed / 2**20:.0f} MiB, into {root}', flush=True)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
      list(pool.map(lambda file: _copy(file, targets[file], stats[file]), missing))
  except (tf.errors.OpError, OSError) as error:
    raise InputError(f'Files cannot be copied into data.options.cache_dir {folder}: '
                     f'{str(error).splitlines()[0]}') from error
  return {file: str(target) for file, target in targets.items()}


def _target(file: str, folder: pathlib.Path) -> pathlib.Path:
  parent, name = os.path.split(file if in_object_store(file) else os.path.abspath(file))
  # Two prepared forms of a data set have files with the same names.
  mark = hashlib.sha256(parent.encode()).hexdigest()[:16]
  return folder / mark / name


def _is_copy(target: pathlib.Path, stat) -> bool:
  if not target.exists():
    return False
  own = target.stat()
  return own.st_size == stat.length and int(own.st_mtime) == int(stat.mtime_nsec / 1e9)


def _check_room(needed: int, files: int, folder: pathlib.Path) -> None:
  free = shutil.disk_usage(folder).free if files else 0
  if needed > free:
    raise InputError(f'data.options.cache_dir {folder} has {free / 2**20:.0f} MiB free; the '
                     f'{files} files that this host needs take {needed / 2**20:.0f} MiB. Give '
                     'another folder, or none.')


def _copy(file: str, target: pathlib.Path, stat) -> None:
  """Copies one file; the copy gets its final name when it is complete."""
  import tensorflow as tf

  with atomic_path(target) as partial:
    tf.io.gfile.copy(file, str(partial), overwrite=True)
  # Not set on the partial file, which would then look like an abandoned one.
  seconds = stat.mtime_nsec / 1e9
  os.utime(target, (seconds, seconds))
