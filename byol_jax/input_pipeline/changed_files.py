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
        f'{workdir} has no readable {fingerprint.RECORD}: the data files are recorded now, '
        'and earlier changes to them go unnoticed')
    return fingerprint.with_checksums(now, seed, files.packed), action == 'accept'
  if any(changes := fingerprint.compare(saved, now)):
    if action != 'accept':
      raise InputError(
          f'The data files have changed since the run in {workdir} began: {changes}. Images that '
          'were held out could be trained on. Restore the files, give another --workdir to start '
          'again, or give --config.data.changed_files=accept to continue with the changed files.')
    parallel.print_once(
        f'data.changed_files=accept: continuing with changed data files: {changes}')
    return fingerprint.with_checksums(now, seed, files.packed), True
  if saved.paths == now.paths and np.array_equal(saved.times, now.times):
    return None, True
  parallel.print_once(
      'the data files have moved or have other modification times; their names and sizes '
      f'({counted(len(now.names), "file")}) and the contents of {len(saved.checksums)} of them '
      'are unchanged')
  return (now._replace(checksums=saved.checksums) if saved.checksums else
          fingerprint.with_checksums(now, seed, files.packed)), True


def check_pretrained(pretrained: epath.Path, files: Files, *, action: str) -> None:
  """Raises InputError if an evaluation uses other files than its encoder was trained on."""
  saved = _saved(pretrained, action)
  if saved is None:
    parallel.print_once(
        f'{pretrained} has no readable {fingerprint.RECORD}: changes to the data since the '
        'pretraining go unnoticed')
    return
  if any(changes := fingerprint.compare(saved, fingerprint.observe(files))):
    if action != 'accept':
      raise InputError(
          f'The data files have changed since the encoder of {pretrained} was trained: {changes}. '
          'Images that are held out now could have been trained on. Restore the files, or give '
          '--config.data.changed_files=accept to evaluate with the changed files.')
    parallel.print_once(
        'data.changed_files=accept: evaluating with data files that have changed since the '
        f'encoder was trained: {changes}')


def _saved(workdir: epath.Path, action: str) -> fingerprint.Record | None:
  try:
    return fingerprint.read(workdir)
  except InputError:
    if action == 'accept':
      return None
    raise
