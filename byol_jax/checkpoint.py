"""Save and restore of a run through Orbax.

A checkpoint of step N is the folder `<workdir>/checkpoints/N` with four trees,
`online`, `target`, `state` (BatchNorm statistics of both networks) and `optimizer`
(its state), and `meta`: config, resolved values, shapes, and a sha256 of each tree.
Orbax writes it in the background and commits it, by a rename or in an object store by
the file COMMITTED: what `steps` lists is whole. Altered bytes load without an error in
Orbax, hence the digests: every restore compares them. A checkpoint that is damaged is
named and left aside, and the newest sound one is used.

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
# In a folder of an object store, which cannot be renamed, once all of it is there.
COMMITTED = 'commit_success.txt'
PAUSE = 2.  # seconds before a read that failed is tried again

Meta = dict[str, Any]


class SaveFailed(InputError):
  """A checkpoint that could not be written; says why and what is left."""


class Damaged(InputError):
  """A checkpoint whose files are missing, truncated or altered; names it."""


# Orbax logs some fifty lines per save, and warns where a save has no metric to rank by.
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
  """Opens the checkpoints of a workdir for writing; the end waits for the last save.

  Keeps the newest `keep_last` and the best `keep_best` by `knn/top1`.

  Raises:
    SaveFailed: a save in the background has failed, noticed at the next one or at the end.
  """
  checkpoints = _manager(workdir, keep_last, keep_best)
  try:
    yield checkpoints
  except BaseException:
    # What is being saved is still worth having; the first error is the one to tell.
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
      # Without it Orbax does not write the metrics that the policy above reads.
      best_fn=best,
      # What a process that was killed has left of a save.
      cleanup_tmp_directories=True,
      enable_async_checkpointing=True)
  folder = _folder(workdir)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be made ({error.strerror}); give another --workdir.'
                     ) from error
  return ocp.CheckpointManager(folder, options=options, item_names=(*TREES, 'meta'))


def save(checkpoints: ocp.CheckpointManager, state: TrainState, meta: Mapping[str, Any],
         metrics: Mapping[str, float]) -> None:
  """Starts to save a state in the background.

  Args:
    checkpoints: from `saving`.
    state: NumPy arrays that nobody changes afterwards (`parallel.fetch`).
    meta: JSON values to keep with it.
    metrics: may hold BEST_METRIC, by which the best checkpoint is kept.

  Raises:
    SaveFailed: this save, or the one before, could not be written.
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
    raise SaveFailed(f'Step {int(state.step)} is not saved in {checkpoints.directory}: there is '
                     'a checkpoint of this or a later step, which this run has not made. Move it '
                     'away, and give the same command again.')


def steps(workdir: str | os.PathLike) -> list[int]:
  """The steps of the complete checkpoints in a workdir, ascending; empty without any."""
  folder = _folder(workdir)
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if _is_checkpoint(path))


def _is_checkpoint(path: epath.Path) -> bool:
  if not (path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name):
    return False
  return not files.in_object_store(path) or (path / COMMITTED).exists()


def damage(workdir: str | os.PathLike, step: int) -> str:
  """What is wrong with a checkpoint, in words; '' where all its digests agree."""
  try:
    _read_step(workdir, TREES, step)
  except Damaged as error:
    return str(error)
  return ''


def newest_sound(workdir: str | os.PathLike, names: Sequence[str] = TREES) -> int:
  """The newest step of which `names` are sound; says on stderr which newer ones are not.

  Raises:
    InputError: there is no checkpoint, or none is sound.
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
    raise InputError(f'None of the {len(found)} checkpoints in {_folder(workdir)} is sound; the '
                     f'newest: {errors[0]}')
  raise _none(workdir)


def set_aside(workdir: str | os.PathLike, after: int) -> None:
  """Moves the checkpoints after a step out of the way of those that will be written anew."""
  for step in [step for step in steps(workdir) if step > after]:
    aside = _folder(workdir).parent / 'damaged_checkpoints'
    aside.mkdir(parents=True, exist_ok=True)
    free = next(name for i in itertools.count() if not (name := aside / f'{step}.{i}').exists())
    (_folder(workdir) / str(step)).rename(free)
    print(f'WARNING the checkpoint of step {step} was moved to {free}', file=sys.stderr, flush=True)


def read_meta(workdir: str | os.PathLike, step: int | None = None) -> Meta:
  """`restore_trees` of no tree: the `meta` of a checkpoint."""
  return restore_trees(workdir, (), step)[1]


def restore_trees(workdir: str | os.PathLike, names: Sequence[str], step: int | None = None
                  ) -> tuple[dict[str, tensors.Tree], Meta]:
  """Reads and verifies some of the TREES as NumPy, with the checkpoint's meta.

  Args:
    names: of the trees.
    step: of the checkpoint; where None, the newest of which these trees are sound.

  Raises:
    InputError: no such checkpoint, or a tree whose digest is not the saved one.
  """
  if step is None:
    step = newest_sound(workdir, names)
  elif step not in steps(workdir):
    raise _none(workdir, step)
  return _read_step(workdir, names, step)


def restore(workdir: str | os.PathLike, like: TrainState, step: int | None = None
            ) -> tuple[TrainState, Meta]:
  """The verified state of a checkpoint as NumPy, for any number of devices.

  Args:
    like: a state of the same networks and optimizer, of which only the shapes matter.
    step: of the checkpoint; the newest sound one where None.

  Raises:
    InputError: no such checkpoint, damaged, or of another architecture.
  """
  if step is None:
    step = newest_sound(workdir)
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
  # The storage layer has many kinds of error; a full disk is the commonest.
  except Exception as error:
    if processes.has_lost_one(error):
      raise
    raise _save_failed(workdir, error) from error


def _save_failed(workdir, error: Exception) -> SaveFailed:
  reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), '')
  found = steps(workdir)
  left = (f'the last whole checkpoint is that of step {found[-1]}' if found
          else 'there is no earlier one')
  return SaveFailed(f'A checkpoint in {_folder(workdir)} could not be written '
                    f'({type(error).__name__}: {reason.strip()[-300:]}); {left}. Free space or '
                    'repair the storage, and give the same command again: it goes on from there.')


def _read_step(workdir, names: Sequence[str], step: int) -> tuple[dict[str, tensors.Tree], Meta]:
  """Trees and meta of a step; raises Damaged where a digest is not the saved one."""
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
  """Whether it is the meta of this step, as it was saved."""
  digests = meta.get('digests') if isinstance(meta, dict) else None
  return (isinstance(digests, dict) and digests.get('meta') == _meta_digest(meta)
          and meta['step'] == step)


def _read(workdir, step: int, name: str, args, attempts: int = 3) -> Any:
  """One item of a checkpoint; what the reader raises becomes Damaged with its name."""
  handler = ocp.JsonCheckpointHandler() if name == 'meta' else ocp.StandardCheckpointHandler()
  try:
    # The handler alone: a Checkpointer would wait for the other processes of a job.
    return handler.restore(_folder(workdir) / str(step) / name, args=args)
  except (MemoryError, PermissionError) as error:
    raise InputError(f'{_folder(workdir) / str(step)}: {name} cannot be read '
                     f'({type(error).__name__}: {error}).') from error
  # Damaged files surface as many kinds of error from the storage layer.
  except Exception as error:
    # A disk that fails in passing must not lose a sound checkpoint.
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and attempts > 1:
      time.sleep(PAUSE)
      return _read(workdir, step, name, args, attempts - 1)
    raise _damaged(workdir, step, name, f' ({type(error).__name__})') from error
  finally:
    handler.close()


def _damaged(workdir, step: int, name: str, kind: str = '') -> Damaged:
  return Damaged(f'{_folder(workdir) / str(step)}: {name} is damaged: missing files, or '
                 f'its sha256 is not the one saved with it{kind}.')


def _meta_digest(meta: Mapping[str, Any]) -> str:
  digests = {name: value for name, value in meta['digests'].items() if name != 'meta'}
  text = json.dumps(dict(meta, digests=digests), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
