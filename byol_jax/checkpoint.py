"""Save and restore of a run through Orbax.

A checkpoint of step N is the folder `<workdir>/checkpoints/N` with four trees,
`online`, `target`, `state` (BatchNorm statistics of both networks) and `optimizer`
(momentum), and `meta`: config, resolved values, shapes, and a sha256 of each tree.
Orbax writes it in the background and commits it by a rename, so that a folder of
that name is whole. Altered bytes load without an error in Orbax, hence the digests:
every restore compares them.
"""

from collections.abc import Mapping
import hashlib
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from byol_jax.errors import InputError
from byol_jax.train_step import TrainState

TREES = ('online', 'target', 'state', 'optimizer')
BEST_METRIC = 'knn/top1'

Tree = Mapping[str, Any]
Meta = dict[str, Any]

# Orbax logs some fifty lines per save, and warns where a save has no metric to rank by.
logging.getLogger('absl').addFilter(
    lambda record: 'orbax' not in record.pathname or record.levelno >= logging.ERROR)


def trees_of(state: TrainState) -> dict[str, Tree]:
  """The four trees of a state, as nested dicts of arrays."""
  return dict(online=state.online_params, target=state.target_params,
              state=dict(online=state.online_state, target=state.target_state),
              optimizer=optax.tree.get(state.opt_state, 'trace'))


def digest(tree: Tree) -> str:
  """sha256 over paths, dtypes, shapes and bytes of all arrays, in the order of the paths."""
  digest = hashlib.sha256()
  for path, array in sorted(_flatten(tree).items()):
    array = np.ascontiguousarray(array)
    digest.update(f'{path} {array.dtype} {list(array.shape)}\n'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def manager(workdir: str | pathlib.Path, *, keep_last: int, keep_best: int
            ) -> ocp.CheckpointManager:
  """Opens the checkpoints of a workdir for writing; call `close` to finish the last save.

  Keeps the newest `keep_last` and the best `keep_best` by `knn/top1`.
  """
  policies = [checkpoint_managers.LatestN(n=keep_last),
              checkpoint_managers.BestN(get_metric_fn=_best_metric, n=keep_best,
                                        keep_checkpoints_without_metrics=False)]
  options = ocp.CheckpointManagerOptions(
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      # Without it Orbax does not write the metrics that the policy above reads.
      best_fn=_best_metric,
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
    checkpoints: from `manager`.
    state: NumPy arrays that nobody changes afterwards (`parallel.fetch`).
    meta: JSON values to keep with it.
    metrics: may hold BEST_METRIC, by which the best checkpoint is kept.
  """
  trees = trees_of(state)
  meta = dict(meta, step=int(state.step), digests={k: digest(v) for k, v in trees.items()},
              tensors={k: describe(v) for k, v in trees.items()})
  meta['digests']['meta'] = _meta_digest(meta)
  items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
  checkpoints.save(int(state.step), args=ocp.args.Composite(
      meta=ocp.args.JsonSave(meta), **items),
      metrics={BEST_METRIC: metrics[BEST_METRIC]} if BEST_METRIC in metrics else None)


def steps(workdir: str | pathlib.Path) -> list[int]:
  """The steps of the complete checkpoints in a workdir, ascending; empty without any."""
  folder = _folder(workdir)
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def read_meta(workdir: str | pathlib.Path, step: int | None = None) -> Meta:
  """The `meta` of a checkpoint; the newest where `step` is None.

  Raises:
    InputError: there is no such checkpoint, or its meta is damaged.
  """
  step = _find(workdir, step)
  meta = _read(workdir, step, 'meta', ocp.args.JsonRestore())
  if meta.get('digests', {}).get('meta') != _meta_digest(meta):
    raise _damaged(workdir, step, 'meta')
  return meta


def restore_trees(workdir: str | pathlib.Path, names: tuple[str, ...], step: int | None = None
                  ) -> tuple[dict[str, Tree], Meta]:
  """Reads and verifies some of the TREES as NumPy, with the checkpoint's meta.

  Raises:
    InputError: no such checkpoint, or a tree whose digest is not the saved one.
  """
  meta = read_meta(workdir, step)
  trees = {}
  for name in names:
    trees[name] = _read(workdir, meta['step'], name, ocp.args.StandardRestore())
    if digest(trees[name]) != meta['digests'][name]:
      raise _damaged(workdir, meta['step'], name)
  return trees, meta


def restore(workdir: str | pathlib.Path, like: TrainState, step: int | None = None
            ) -> tuple[TrainState, Meta]:
  """The verified state of a checkpoint as NumPy, for any number of devices.

  Args:
    workdir: of the run.
    like: a state of the same networks and optimizer, of which only the shapes matter.
    step: of the checkpoint; the newest where None.

  Raises:
    InputError: no such checkpoint, damaged, or of another architecture.
  """
  meta = read_meta(workdir, step)
  for name, tree in trees_of(like).items():
    check_tensors(meta['tensors'][name], describe(tree),
                  f'{_folder(workdir) / str(meta["step"])}, {name}')
  trees, _ = restore_trees(workdir, TREES, meta['step'])
  return TrainState(
      step=np.int32(meta['step']), online_params=trees['online'], target_params=trees['target'],
      online_state=trees['state']['online'], target_state=trees['state']['target'],
      opt_state=optax.tree.set(like.opt_state, trace=trees['optimizer'])), meta


def describe(tree: Tree) -> dict[str, str]:
  """{path: dtype and shape} of every array."""
  return {path: f'{leaf.dtype}{list(leaf.shape)}' for path, leaf in _flatten(tree).items()}


def check_tensors(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
  """Raises InputError with the tensors that differ between two descriptions."""
  differing = [f'{path}: saved {saved.get(path, "-")}, wanted {wanted.get(path, "-")}'
               for path in sorted({*saved, *wanted}) if saved.get(path) != wanted.get(path)]
  if differing:
    shown = '\n  '.join(differing[:10])
    more = f'\n  and {len(differing) - 10} more' if len(differing) > 10 else ''
    raise InputError(f'{where}: the checkpoint holds another architecture. '
                     f'{len(differing)} tensors differ:\n  {shown}{more}')


def _best_metric(metrics: Mapping[str, float]) -> float:
  return metrics[BEST_METRIC]


def _folder(workdir) -> pathlib.Path:
  return pathlib.Path(workdir).expanduser().absolute() / 'checkpoints'


def _find(workdir, step: int | None) -> int:
  found = steps(workdir)
  if not found:
    raise InputError(f'No checkpoint in {_folder(workdir)}: give the --workdir of a '
                     'pretraining run that has saved one.')
  if step is not None and step not in found:
    raise InputError(f'No checkpoint of step {step} in {_folder(workdir)}; there are '
                     f'{", ".join(map(str, found))}.')
  return found[-1] if step is None else step


def _read(workdir, step: int, name: str, args) -> Any:
  """One item of a checkpoint; what the reader raises becomes an InputError with its name."""
  handler = ocp.JsonCheckpointHandler() if name == 'meta' else ocp.StandardCheckpointHandler()
  try:
    with ocp.Checkpointer(handler) as reader:
      return reader.restore(_folder(workdir) / str(step) / name, args=args)
  # Damaged files surface as many kinds of error from the storage layer.
  except Exception as error:
    raise _damaged(workdir, step, name) from error


def _damaged(workdir, step: int, name: str) -> InputError:
  others = [str(other) for other in steps(workdir) if other != step]
  way_out = (f'move {_folder(workdir) / str(step)} away to go on from step {others[-1]}'
             if others else 'there is no other checkpoint in this workdir')
  return InputError(f'{_folder(workdir) / str(step)}: {name} is damaged: missing files, or '
                    f'its sha256 is not the one saved with it; {way_out}.')


def _flatten(tree: Tree) -> dict[str, np.ndarray]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _meta_digest(meta: Mapping[str, Any]) -> str:
  digests = {name: value for name, value in meta.get('digests', {}).items() if name != 'meta'}
  text = json.dumps(dict(meta, digests=digests), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
