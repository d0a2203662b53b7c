"""Saves and restores a run through Orbax.

The checkpoint of step N is the folder `<workdir>/checkpoints/N`. It has four trees,
`online`, `target`, `state` (BatchNorm statistics of both networks) and `optimizer`
(its state), and `meta`: config, resolved values, shapes, and a sha256 of each tree.
Orbax writes it in the background and commits it by a rename, or in an object store by
the file COMMITTED, so every step that `steps` lists is complete. Orbax loads altered bytes
without an error, so every restore compares the digests. A damaged checkpoint is
reported and skipped, and the newest valid one is used.

The folder may lie in an object store. In a job of several processes all of them call
`saving`, `save` and the restoring functions; the arrays are the same on each.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import hashlib
import itertools
import json
import logging
import operator
import os
import sys
import time
from typing import Any

from etils import epath
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from byol_jax import files, tensors
from byol_jax.distributed import processes
from byol_jax.errors import InputError
from byol_jax.input_pipeline import file_kinds
from byol_jax.train_step import TrainState

TREES = ('online', 'target', 'state', 'optimizer')
BEST_METRIC = 'knn/top1'
# Marks a complete folder in an object store, where folders cannot be renamed.
COMMITTED = 'commit_success.txt'
PAUSE = 2.  # seconds before a failed read is retried

Meta = dict[str, Any]


class SaveFailed(InputError):
  """A checkpoint could not be written; the message says why and which one is the last."""


class Damaged(InputError):
  """A checkpoint has missing, truncated or altered files; the message names it."""


# Orbax logs about fifty lines per save, and warns when a save has no metric to rank by.
logging.getLogger('absl').addFilter(
    lambda record: 'orbax' not in record.pathname or record.levelno >= logging.ERROR)


def trees_of(state: TrainState) -> dict[str, tensors.Tree]:
  """The four trees of a state, as nested dicts of arrays."""
  return dict(online=state.online_params, target=state.target_params,
              state=dict(online=state.online_state, target=state.target_state),
              optimizer=tensors.nested(state.opt_state))


@contextlib.contextmanager
def saving(workdir: str | os.PathLike, *, keep_last: int, keep_best: int
           ) -> Iterator[ocp.CheckpointManager]:
  """Opens the checkpoints of a workdir for writing; on exit it waits for the last save.

  Keeps the newest `keep_last` and the best `keep_best` by `knn/top1`.

  Raises:
    SaveFailed: a background save failed; raised at the next save or on exit.
  """
  checkpoints = _manager(workdir, keep_last, keep_best)
  try:
    yield checkpoints
  except BaseException:
    # Let the save in progress finish, but report the first error.
    with contextlib.suppress(Exception):
      checkpoints.close()
    raise
  with _as_save_failed(workdir):
    checkpoints.close()


def _manager(workdir, keep_last: int, keep_best: int) -> ocp.CheckpointManager:
  best = operator.itemgetter(BEST_METRIC)
  policies = [checkpoint_managers.LatestN(n=keep_last),
              checkpoint_managers.BestN(get_metric_fn=best, n=keep_best,
                                        keep_checkpoints_without_metrics=False)]
  options = ocp.CheckpointManagerOptions(
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      # Without this, Orbax does not write the metrics that the policy above reads.
      best_fn=best,
      # Removes partial saves left by a killed process.
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True)
  folder = _folder(workdir)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be created ({error.strerror}); give another --workdir.'
                     ) from error
  return ocp.CheckpointManager(folder, options=options, item_names=(*TREES, 'meta'))


def save(checkpoints: ocp.CheckpointManager, state: TrainState, meta: Mapping[str, Any],
         metrics: Mapping[str, float]) -> None:
  """Starts saving a state in the background.

  Args:
    checkpoints: from `saving`.
    state: NumPy arrays that must not change afterwards (from `parallel.fetch`).
    meta: JSON values to save with it.
    metrics: may contain BEST_METRIC, which ranks the checkpoints to keep.

  Raises:
    SaveFailed: this save or the previous one could not be written.
  """
  trees = trees_of(state)
  meta = dict(meta, step=int(state.step), digests={k: tensors.digest(v) for k, v in trees.items()},
              tensors={k: tensors.describe(v) for k, v in trees.items()})
  meta['digests']['meta'] = _meta_digest(meta)
  items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
  best = {BEST_METRIC: metrics[BEST_METRIC]} if BEST_METRIC in metrics else None
  with _as_save_failed(checkpoints.directory.parent):
    begun = checkpoints.save(int(state.step), metrics=best, args=ocp.args.Composite(
        meta=ocp.args.JsonSave(meta), **items))
  if not begun:
    raise SaveFailed(f'Step {int(state.step)} was not saved in {checkpoints.directory}: there is '
                     'already a checkpoint of this or a later step from another run. Move it '
                     'away and run the same command again.')


def steps(workdir: str | os.PathLike) -> list[int]:
  """The steps of the complete checkpoints in a workdir, ascending; empty if there are none."""
  folder = _folder(workdir)
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if _is_checkpoint(path))


def _is_checkpoint(path: epath.Path) -> bool:
  if not (path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name):
    return False
  return not files.in_object_store(path) or (path / COMMITTED).exists()


def verify(workdir: str | os.PathLike, step: int) -> str:
  """Describes what is wrong with a checkpoint; '' if all its digests match."""
  try:
    _read_step(workdir, TREES, step)
  except Damaged as error:
    return str(error)
  return ''


def latest_valid_step(workdir: str | os.PathLike, names: Sequence[str] = TREES) -> int:
  """The newest step whose trees `names` are valid; warns on stderr about damaged newer ones.

  Raises:
    InputError: there is no checkpoint, or none is valid.
  """
  found, errors = steps(workdir), []
  for step in reversed(found):
    try:
      _read_step(workdir, names, step)
      return step
    except Damaged as error:
      errors.append(error)
      print(f'WARNING {error}', file=sys.stderr, flush=True)
  if errors:
    raise InputError(f'None of the {len(found)} checkpoints in {_folder(workdir)} is valid; the '
                     f'newest: {errors[0]}')
  raise _none(workdir)


def quarantine(workdir: str | os.PathLike, after: int) -> None:
  """Moves the checkpoints after a step away, because the run will write these steps again."""
  for step in [step for step in steps(workdir) if step > after]:
    aside = _folder(workdir).parent / 'damaged_checkpoints'
    aside.mkdir(parents=True, exist_ok=True)
    free = next(name for i in itertools.count() if not (name := aside / f'{step}.{i}').exists())
    (_folder(workdir) / str(step)).rename(free)
    print(f'WARNING the checkpoint of step {step} was moved to {free}', file=sys.stderr, flush=True)


def read_meta(workdir: str | os.PathLike, step: int | None = None) -> Meta:
  """Reads the `meta` of a checkpoint; like `restore_trees` without any tree."""
  return restore_trees(workdir, (), step)[1]


def restore_trees(workdir: str | os.PathLike, names: Sequence[str], step: int | None = None
                  ) -> tuple[dict[str, tensors.Tree], Meta]:
  """Reads and verifies some of the TREES as NumPy, with the checkpoint's meta.

  Args:
    names: which trees to read.
    step: step of the checkpoint; if None, the newest one whose `names` are valid.

  Raises:
    InputError: there is no such checkpoint, or the digest of a tree does not match.
  """
  if step is None:
    step = latest_valid_step(workdir, names)
  elif step not in steps(workdir):
    raise _none(workdir, step)
  return _read_step(workdir, names, step)


def restore(workdir: str | os.PathLike, like: TrainState, step: int | None = None
            ) -> tuple[TrainState, Meta]:
  """Reads and verifies the state of a checkpoint as NumPy, for any number of devices.

  Args:
    like: a state of the same networks and optimizer; only its shapes matter.
    step: step of the checkpoint; the newest valid one if None.

  Raises:
    InputError: the checkpoint is missing, damaged, or of another architecture.
  """
  if step is None:
    step = latest_valid_step(workdir)
  meta = read_meta(workdir, step)
  for name, tree in trees_of(like).items():
    tensors.check(meta['tensors'][name], tensors.describe(tree),
                  f'{_folder(workdir) / str(meta["step"])}, {name}')
  trees, _ = restore_trees(workdir, TREES, step)
  return TrainState(
      step=np.int32(meta['step']), online_params=trees['online'], target_params=trees['target'],
      online_state=trees['state']['online'], target_state=trees['state']['target'],
      opt_state=tensors.filled(like.opt_state, trees['optimizer'])), meta


def _folder(workdir):
  return files.folder(workdir) / 'checkpoints'


def _none(workdir, step: int | None = None) -> InputError:
  found = ', '.join(map(str, steps(workdir)))
  if not found:
    return InputError(file_kinds.no_run(files.folder(workdir)) or (
        f'No checkpoint in {_folder(workdir)}: give the --workdir of a pretraining run that has '
        'saved one.'))
  return InputError(f'No checkpoint of step {step} in {_folder(workdir)}; there are {found}.')


@contextlib.contextmanager
def _as_save_failed(workdir) -> Iterator[None]:
  try:
    yield
  # The storage layer raises many kinds of error; a full disk is the most common cause.
  except Exception as error:
    if processes.is_peer_failure(error):
      raise
    raise _save_failed(workdir, error) from error


def _save_failed(workdir, error: Exception) -> SaveFailed:
  reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), '')
  found = steps(workdir)
  left = (f'the last complete checkpoint is step {found[-1]}' if found
          else 'there is no earlier one')
  return SaveFailed(f'A checkpoint in {_folder(workdir)} could not be written '
                    f'({type(error).__name__}: {reason.strip()[-300:]}); {left}. Free space or '
                    'repair the storage, then run the same command again: it resumes from there.')


def _read_step(workdir, names: Sequence[str], step: int) -> tuple[dict[str, tensors.Tree], Meta]:
  """The trees and meta of a step; raises Damaged if a digest does not match."""
  meta = _read(workdir, step, 'meta', ocp.args.JsonRestore())
  if not _is_meta(meta, step):
    raise _damaged(workdir, step, 'meta')
  trees = {}
  for name in names:
    trees[name] = _read(workdir, step, name, ocp.args.StandardRestore())
    if tensors.digest(trees[name]) != meta['digests'].get(name):
      raise _damaged(workdir, step, name)
  return trees, meta


def _is_meta(meta: Any, step: int) -> bool:
  """Whether `meta` belongs to this step and is unchanged since it was saved."""
  digests = meta.get('digests') if isinstance(meta, dict) else None
  return (isinstance(digests, dict) and digests.get('meta') == _meta_digest(meta)
          and meta['step'] == step)


def _read(workdir, step: int, name: str, args, attempts: int = 3) -> Any:
  """Reads one item of a checkpoint; turns errors of the reader into Damaged with its name."""
  handler = ocp.JsonCheckpointHandler() if name == 'meta' else ocp.StandardCheckpointHandler()
  try:
    # Only the handler: a Checkpointer would wait for the other processes of a job.
    return handler.restore(_folder(workdir) / str(step) / name, args=args)
  except (MemoryError, PermissionError) as error:
    raise InputError(f'{_folder(workdir) / str(step)}: {name} cannot be read '
                     f'({type(error).__name__}: {error}).') from error
  # The storage layer reports damaged files with many kinds of error.
  except Exception as error:
    # A temporary disk failure must not discard a valid checkpoint.
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and attempts > 1:
      time.sleep(PAUSE)
      return _read(workdir, step, name, args, attempts - 1)
    raise _damaged(workdir, step, name, f' ({type(error).__name__})') from error
  finally:
    handler.close()


def _damaged(workdir, step: int, name: str, kind: str = '') -> Damaged:
  return Damaged(f'{_folder(workdir) / str(step)}: {name} is damaged: files are missing, or '
                 f'its sha256 does not match the saved one{kind}.')


def _meta_digest(meta: Mapping[str, Any]) -> str:
  digests = {name: value for name, value in meta['digests'].items() if name != 'meta'}
  text = json.dumps(dict(meta, digests=digests), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
