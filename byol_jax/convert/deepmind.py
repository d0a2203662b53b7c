"""Converts checkpoints of DeepMind's reference implementation, such as the published ones.

Such a file is a dill pickle of `experiment_state` (parameters and BatchNorm statistics
of both networks, the state of LARS), `step` and `rng`. Its modules have the same names as
ours, so the tensors are copied unchanged. The files do not state depth, width, version or
heads; these follow from the tensors.
"""

from collections.abc import Mapping
import os
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from byol_jax import checkpoint, tensors
from byol_jax.convert import architecture, imported, pickles
from byol_jax.convert.stand_ins import Record
from byol_jax.errors import InputError
from byol_jax.input_pipeline import file_kinds
from byol_jax.train_step import TrainState

LICENCE = ('CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/), if DeepMind published '
           'this file: name the authors (Grill et al. 2020), no commercial use')
TREES = ('online_params', 'target_params', 'online_state', 'target_state')


class Imported(NamedTuple):
  """What was found in a file.

  step: step of the run that made it.
  model: the `model` section of the new config.
  num_classes: number of classes of its online classifier; 0 if there is none.
  notes: what the file lacked and what was used instead.
  source: the record of its origin in the new checkpoint.
  """

  step: int
  model: dict[str, Any]
  num_classes: int
  notes: tuple[str, ...]
  source: dict[str, Any]

  def __str__(self):
    options = self.model['encoder_options']
    return '\n'.join([
        f'ResNet-{options["depth"]}, width {options["width"]:g}, version {options["version"]}, '
        f'projector {self.model["projector"]}, predictor {self.model["predictor"]}, '
        f'{self.num_classes} classes, step {self.step}; nothing missing, nothing left over '
        'in the online network', *self.notes, f'licence of the weights: {LICENCE}'])


def convert(path: str | os.PathLike, workdir: str | os.PathLike, config: Mapping[str, Any]
            ) -> Imported:
  """Writes a checkpoint of this package with the contents of a reference checkpoint.

  Args:
    path: the file; nothing in it is executed.
    workdir: where to write the checkpoint; it must not have one already.
    config: a pretraining config in JSON form. Its `model` section is replaced by values from
      the tensors, with the padding and BatchNorm constants of the reference.

  Raises:
    InputError: the file cannot be read or is refused, its tensors match no known network,
      or tensors of the online network are missing or left over (all are listed).
  """
  if checkpoint.steps(workdir):
    raise InputError(f'{os.fspath(workdir)} already has checkpoints; give a new --workdir.')
  state, found = _read(path, config['model'])
  meta = dict(config=dict(config, model=found.model),
              resolved=dict(num_classes=found.num_classes, max_steps=found.step),
              versions=dict(jax=jax.__version__), source=found.source)
  held = [state]
  del state
  imported.write(workdir, held.pop, meta)
  return found


def scan(path: str | os.PathLike) -> pickles.Scan:
  """Lists what a file names and contains, without loading it.

  Raises:
    InputError: there is no such file, or it is not a pickle.
  """
  _check_kind(path)
  return pickles.scan(path)


def _check_kind(path: str | os.PathLike) -> None:
  """Raises InputError for a file that is known not to be a pickle."""
  kind = file_kinds.kind(path) if os.path.exists(path) else file_kinds.UNKNOWN
  if kind in (file_kinds.TORCH, file_kinds.TORCHSCRIPT, file_kinds.SAFETENSORS):
    raise InputError(f'{os.fspath(path)} is {kind}, which another command reads: python -m '
                     'experiments.convert from_torch.')
  if kind not in (file_kinds.PICKLE, file_kinds.UNKNOWN):
    raise InputError(f'{os.fspath(path)} is {kind}. A pickled checkpoint like those that DeepMind '
                     'published is needed (--input).')


def _read(path, defaults: Mapping[str, Any]) -> tuple[TrainState, Imported]:
  _check_kind(path)
  step, trees, momentum = _parts(pickles.load(path), path)
  section, num_classes = _model(trees, defaults, path)
  state, notes = _state(step, trees, momentum, architecture.shapes(section, num_classes), path)
  source = dict(kind='checkpoint of the reference implementation', file=os.path.basename(path),
                sha256=imported.sha256(path), licence=LICENCE, notes=list(notes))
  return state, Imported(step, section, num_classes, notes, source)


def _parts(value: Any, path) -> tuple[int, dict[str, Any], Any]:
  """(step, {tree: arrays by module}, LARS's momentum or None) from a file's contents."""
  state = value.get('experiment_state') if isinstance(value, dict) else None
  if isinstance(state, Record):
    state = dict(zip(state.fields, state.values))
  if not isinstance(state, dict):
    raise InputError(f'{path}: it has no experiment_state, unlike checkpoints of the '
                     'reference implementation; `--scan` shows what it has.')
  trees = {name: state.get(name) for name in TREES}
  for name in TREES:
    if not _is_tree(trees[name]):
      if name.startswith('online'):
        raise InputError(f'{path}: experiment_state has no {name} of arrays by module; `--scan` '
                         'shows what it has.')
      trees[name] = {}
  return (_step(value.get('step'), path), trees,
          _momentum(state.get('opt_state'), set(trees['online_params'])))


def _step(value: Any, path) -> int:
  # Only a number is converted: a list could repeat a large array many times.
  if isinstance(value, np.ndarray) and value.size == 1 and value.dtype.kind in 'iu':
    value = value.item()
  if type(value) is not int or not 0 <= value < 2 ** 31:
    raise InputError(f'{path}: it has no step from 0 to 2 ** 31 - 1.')
  return value


def _is_tree(value: Any) -> bool:
  # A slash in the name of an array would make it look like an array of another module.
  return isinstance(value, dict) and all(
      isinstance(arrays, dict) and all(isinstance(array, np.ndarray) and '/' not in name
                                       for name, array in arrays.items())
      for arrays in value.values())


def _momentum(opt_state: Any, modules: set[str]) -> Any:
  """The one part of an optimizer's state with the parameters' modules; None if there is none."""
  if isinstance(opt_state, dict) and set(opt_state) == modules and _is_tree(opt_state):
    return opt_state
  parts = opt_state.values if isinstance(opt_state, Record) else opt_state
  if isinstance(parts, (list, tuple)):
    found = [one for one in (_momentum(part, modules) for part in parts) if one is not None]
    return found[0] if len(found) == 1 else None
  return None


def _model(trees, defaults: Mapping[str, Any], path) -> tuple[dict[str, Any], int]:
  """The config's `model` section and the number of classes, from the tensors."""
  params = trees['online_params']
  name, options = architecture.encoder_options(params, str(path))
  sizes = {head: architecture.head_sizes(params, head) for head in ('projector', 'predictor')}
  if not sizes['projector']:
    raise InputError(f'{path}: the projector is missing: no tensor projector/linear/w.')
  if sizes['predictor'] and sizes['predictor'][-1] != sizes['projector'][-1]:
    raise InputError(f'{path}: the predictor ends in {sizes["predictor"][-1]} units and the '
                     f'projector in {sizes["projector"][-1]}; tensors are missing or left over.')
  wanted = architecture.resnet.ARCHITECTURES[options['depth']].name
  if name != wanted:
    raise InputError(f'{path}: its ResNet is named {name}, but at this depth {wanted} is expected.')
  classifier = params.get('classifier', {}).get('w')
  if classifier is not None and classifier.ndim != 2:
    raise InputError(f'{path}: classifier/w has {classifier.ndim} dimensions, but 2 are needed.')
  return dict(defaults, encoder='resnet', compute_dtype='float32',
              encoder_options=dict(options, padding='SAME', zero_init_last_scale=False,
                                   rematerialize=False),
              batch_norm_decay=.9, batch_norm_epsilon=1e-5,
              **{head: list(value) for head, value in sizes.items()}
              ), 0 if classifier is None else classifier.shape[-1]


def _state(step: int, trees, momentum, shapes, path) -> tuple[TrainState, tuple[str, ...]]:
  """The complete state, and notes about what had to be added."""
  params, statistics = shapes
  online = {name: _checked(trees[name], wanted, f'{path}, {name}')
            for name, wanted in (('online_params', params), ('online_state', statistics))}
  notes = []

  def completed(name, found, wanted, instead, words):
    differing = architecture.differences(found, wanted)
    if not differing:
      return architecture.cast(found, wanted, f'{path}, {name}')
    notes.append(f'{name}: {words}.\n{differing}')
    have, need = tensors.flat(found), tensors.flat(wanted)
    taken = {key for key in need if key in have and key not in differing.other}
    whole = {module: {leaf: (found if f'{module}/{leaf}' in taken else instead)[module][leaf]
                      for leaf in leaves} for module, leaves in wanted.items()}
    return architecture.cast(whole, wanted, f'{path}, {name}')

  in_place = 'what is missing was taken from the online network'
  zeros = jax.tree.map(lambda array: np.zeros(array.shape, array.dtype), params)
  state = TrainState(
      np.int32(step), online['online_params'],
      completed('target_params', trees['target_params'], params, online['online_params'], in_place),
      online['online_state'],
      completed('target_state', trees['target_state'], statistics, online['online_state'],
                in_place),
      optax.TraceState(completed('momentum', momentum or {}, params, zeros,
                                 'what is missing is zero')))
  return state, tuple(notes)


def _checked(found, wanted, where: str):
  """The online network's tensors, checked to be complete and finite."""
  differing = architecture.differences(found, wanted)
  if differing:
    raise InputError(f'{where}: the tensors are not those of the network that they seem to be '
                     f'of.\n{differing}')
  return architecture.cast(found, wanted, where)
