"""Logs scalars to a machine-readable file, TensorBoard events and lines for people.

Only the first process writes. `metrics.jsonl` has one JSON object per line:
{"step": 100, "train/loss": 3.2, ...}. A run that resumes at step N first drops the
lines after N, which it will write again.
"""

from collections.abc import Mapping, Sequence
import contextlib
import importlib.util
import json
import os
import sys

import tensorboardX
import tqdm

from byol_jax import files
from byol_jax.distributed import parallel

FILE_NAME = 'metrics.jsonl'


class MetricLog:
  """The open log files of a run; a context manager."""

  def __init__(self, workdir: str | os.PathLike, *, first_step: int, last_step: int):
    """Opens the logs.

    Args:
      workdir: folder of the run.
      first_step: steps already done; records of later steps are dropped.
      last_step: total steps of the run, for the progress bar.
    """
    self._active = parallel.is_first_process()
    if not self._active:
      return
    folder = files.folder(workdir)
    path = folder / FILE_NAME
    kept = [record for record in read(workdir) if record['step'] <= first_step]
    if path.exists() and len(read(workdir)) < len(path.read_bytes().splitlines()):
      # Unreadable lines are dropped from the log, so the old file is kept beside it.
      path.copy(path.with_suffix('.jsonl.damaged'), overwrite=True)
    # The records must survive if the process is killed in between.
    with files.atomic_write(path) as file:
      file.writelines(json.dumps(record) + '\n' for record in kept)
    self._file = path.open('a')
    self._events = _events(folder, first_step)
    self._bar = tqdm.tqdm(total=last_step, initial=first_step, unit='step', dynamic_ncols=True,
                          disable=not sys.stderr.isatty())

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._active:
      self._bar.close()
      self._file.close()
      if self._events:
        self._events.close()

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the scalars of a step to the file and to TensorBoard."""
    if not self._active:
      return
    self._file.write(json.dumps(dict(step=step, **values)) + '\n')
    self._file.flush()
    for name, value in values.items() if self._events else ():
      self._events.add_scalar(name, value, step)

  def arrays(self, step: int, values: Mapping[str, Sequence[float]]) -> None:
    """Writes arrays of a step to the file, with four digits; TensorBoard does not get them."""
    if self._active:
      short = {name: [float(f'{value:.4g}') for value in array] for name, array in values.items()}
      self._file.write(json.dumps(dict(step=step, **short)) + '\n')
      self._file.flush()

  def line(self, text: str) -> None:
    """Prints a line, above the progress bar if there is one."""
    if self._active:
      with self._bar.external_write_mode(sys.stdout):
        parallel.print_once(text)

  def progress(self, step: int) -> None:
    """Moves the progress bar."""
    if self._active:
      self._bar.update(step - self._bar.n)


def _events(folder, first_step: int):
  """The TensorBoard event writer; None if it cannot write to the object store."""
  if '://' in str(folder) and not importlib.util.find_spec('google.cloud.storage'):
    print('No TensorBoard events: google-cloud-storage is not installed.', flush=True)
    return None
  return tensorboardX.SummaryWriter(str(folder / 'tensorboard'), purge_step=first_step + 1)


def read(workdir: str | os.PathLike) -> list[dict[str, float]]:
  """Reads the records of a run in step order; empty if there is no file.

  Lines that are not records, such as one cut off by a kill, are skipped.
  """
  path = files.folder(workdir) / FILE_NAME
  if not path.exists():
    return []
  records = []
  for line in path.read_bytes().decode(errors='replace').splitlines():
    with contextlib.suppress(json.JSONDecodeError):
      record = json.loads(line)
      if isinstance(record, dict) and 'step' in record:
        records.append(record)
  return records
