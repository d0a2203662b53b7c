"""Checks that a run resumes, and is evaluated, with the files it started with."""

from etils import epath
import numpy as np

from byol_jax.distributed import parallel
from byol_jax.errors import InputError, counted
from byol_jax.input_pipeline import fingerprint
from byol_jax.input_pipeline.records import Files


def begin(workdir: epath.Path, files: Files, seed: int) -> None:
  """Records the files of a run that starts."""
  fingerprint.write(workdir, fingerprint.with_checksums(
      fingerprint.observe(files), seed, files.packed))


def resumed(workdir: epath.Path, files: Files, *, seed: int, action: str
            ) -> tuple[fingerprint.Record | None, bool]:
  """Compares the files with those that a run started with.

  Args:
    workdir: workdir of the run.
    files: the files that the data set has now.
    seed: seed of the run.
    action: 'accept' continues with files that have changed.

  Returns:
    The record to keep from now on (None to keep the existing record), and whether the files
    are unchanged or accepted.

  Raises:
    InputError: files have changed, or the record is damaged.
  """
  saved, now = _saved(workdir, action), fingerprint.observe(files)
  if saved is None:
    parallel.print_once(
        f'{workdir} has no {fingerprint.RECORD} that can be read: the files of the data '
        'are recorded now, and what has changed before is not noticed')
    return fingerprint.with_checksums(now, seed, files.packed), action == 'accept'
  if any(changes := fingerprint.compare(saved, now)):
    if action != 'accept':
      raise InputError(
          f'The files of the data are not those that the run in {workdir} was begun with: '
          f'{changes}. Images that were held out could be trained on. Restore the files, give '
          'another --workdir to start anew, or --config.data.changed_files=accept to go on with '
          'them.')
    parallel.print_once(
        f'data.changed_files=accept: goes on with other files than before: {changes}')
    return fingerprint.with_checksums(now, seed, files.packed), True
  if saved.paths == now.paths and np.array_equal(saved.times, now.times):
    return None, True
  parallel.print_once(
      'the files of the data lie elsewhere than before or have other times; their names '
      f'and sizes ({counted(len(now.names), "file")}) and the contents of '
      f'{len(saved.checksums)} of them are the same')
  return (now._replace(checksums=saved.checksums) if saved.checksums else
          fingerprint.with_checksums(now, seed, files.packed)), True


def check_pretrained(pretrained: epath.Path, files: Files, *, action: str) -> None:
  """Raises InputError if an evaluation uses other files than its encoder was trained on."""
  saved = _saved(pretrained, action)
  if saved is None:
    parallel.print_once(
        f'{pretrained} has no {fingerprint.RECORD} that can be read: whether the data '
        'have changed since the pretraining is not noticed')
    return
  if any(changes := fingerprint.compare(saved, fingerprint.observe(files))):
    if action != 'accept':
      raise InputError(
          f'The files of the data are not those that the encoder of {pretrained} was trained on: '
          f'{changes}. Images that are held out now could have been trained on. Restore the files, '
          'or give --config.data.changed_files=accept to evaluate with them.')
    parallel.print_once(
        f'data.changed_files=accept: evaluates with other files than the encoder was '
        f'trained on: {changes}')


def _saved(workdir: epath.Path, action: str) -> fingerprint.Record | None:
  try:
    return fingerprint.read(workdir)
  except InputError:
    if action == 'accept':
      return None
    raise
