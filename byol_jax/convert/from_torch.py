"""Converts PyTorch ResNets to checkpoints of this package.

The tensors of a file determine its network. Files from `to_torch` also have metadata with
what the tensors do not determine; metadata of other files are not read.
"""

import base64
from collections.abc import Mapping
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import checkpoint
from byol_jax.convert import (
  architecture,
  imported,
  to_torch,
  torch_encoder,
  torch_files,
  torch_names,
)
from byol_jax.encoders import resnet
from byol_jax.errors import InputError
from byol_jax.train_step import TrainState

Weights = dict[str, np.ndarray]


def read(path: str | os.PathLike, workdir: str | os.PathLike, config: Mapping[str, Any],
         prefix: str | None = None) -> str:
  """Makes a checkpoint from a torchvision or timm ResNet.

  The file has no projector and predictor, so these and their statistics are initialised
  from the config's seed. The target network starts as a copy of the online network.

  Args:
    path: a safetensors file, or a file from torch.save that torch's weights-only loader can
      read; its name does not matter.
    workdir: where to write the checkpoint; it must not have one already.
    config: a pretraining config in JSON form, whose `model` section is adapted.
    prefix: the prefix of the encoder's names, such as 'module.encoder_q.', or with the key of
      its state dict 'teacher.backbone.'; None finds it if the file has only one ResNet.

  Returns:
    A description of what was read.

  Raises:
    InputError: the file cannot be read, or its tensors match no known network; missing
      and extra tensors are listed.
  """
  if checkpoint.steps(workdir):
    raise InputError(f'{os.fspath(workdir)} already has checkpoints; give a new --workdir.')
  path = pathlib.Path(path).expanduser()
  state_dicts, metadata = torch_files.read(path)
  tensors, left_out = torch_encoder.find(state_dicts, prefix, path)
  size = path.stat().st_size
  weights = {name: torch_files.to_numpy(tensor, f'{path}, {name[:100]!a}', size)
             for name, tensor in tensors.items()}
  if reason := torch_encoder.unlike(weights):
    raise InputError(f'{path}: {reason}.')
  said = _said(metadata, weights, path)
  params, state, unknown = torch_names.from_torch(weights, 'resnet', said.get('hidden'))
  section = _section(said, params, config['model'], path)
  params, state = _completed(params, state, section, config['seed'], unknown, path)
  data = dict(config['data'], image_size=said.get('image_size', config['data']['image_size']))
  source = dict(kind='weights of PyTorch', file=os.path.basename(path),
                sha256=imported.sha256(path), origin=said.get('source', {}),
                notes=['projector, predictor: as initialised', f'not used: {left_out}'])
  if 'licence' in source['origin']:
    source['licence'] = source['origin']['licence']
  new = TrainState(np.int32(0), params, params, state, state,
                   optax.TraceState(jax.tree.map(np.zeros_like, params)))
  imported.write(workdir, lambda: new,
                 dict(config=dict(config, model=section, data=data),
                      versions=dict(jax=jax.__version__),
                      resolved=dict(num_classes=0, max_steps=0), source=source))
  return _words(section, data, left_out, bool(said))


def _words(section, data, left_out, of_ours: bool) -> str:
  options = section['encoder_options']
  return '\n'.join([
      f'ResNet-{options["depth"]}, width {options["width"]:g}, padding {options["padding"]}; '
      'nothing missing, nothing left over in the encoder',
      f'not used: {", ".join(map(ascii, left_out)) or "nothing"}; projector and predictor are as '
      'initialised',
      f'images of {data["image_size"]} pixels, minus {section["image_mean"]}, divided by '
      f'{section["image_std"]}' + ('' if of_ours else ', which the file does not say')])


def _said(metadata: Mapping[str, str], weights: Weights, path) -> dict[str, Any]:
  """The metadata that `to_torch` wrote, checked; {} for other files."""
  if metadata.get('producer') != to_torch.PRODUCER:
    return {}
  try:
    said = {key: json.loads(metadata[key]) for key in (
        *to_torch.IN_SECTION, 'encoder_options', 'image_size', 'source')}
    options, source = said['encoder_options'], said['source']
    numbers = [*said['image_mean'], *said['image_std'], said['batch_norm_epsilon'],
               said['batch_norm_decay']]
    sound = (len(numbers) == 8 and all(np.isfinite(float(number)) for number in numbers)
             and said['batch_norm_epsilon'] > 0 and min(said['image_std']) > 0
             and options['stem'] in tuple(resnet.STEMS) and options['padding'] in resnet.PADDINGS
             and type(options['zero_init_last_scale']) is bool
             and type(said['image_size']) is int
             and 1 <= said['image_size'] <= imported.LARGEST_SIDE
             and isinstance(source, dict) and type(source.get('licence', '')) is str)
    if not sound:
      raise ValueError('impossible values')
    return dict(said, hidden=_hidden(metadata.get('hidden', ''), weights))
  except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
    raise InputError(f'{path}: its metadata are damaged ({type(error).__name__}: '
                     f'{str(error)[:200]!a}); write it again.') from error


def _hidden(encoded: str, weights: Weights) -> Weights:
  """Haiku's averages before bias correction; the running averages where both are the same."""
  names = sorted(name for name in weights if '.running_' in name)
  if not encoded:
    return {name: weights[name] for name in names}
  values = np.frombuffer(base64.b64decode(encoded, validate=True), '<f4')
  ends = np.cumsum([weights[name].size for name in names])
  if len(ends) == 0 or len(values) != ends[-1]:
    raise ValueError('its averages do not fit its tensors')
  return dict(zip(names, np.split(values, ends[:-1])))


def _section(said, params, defaults: Mapping[str, Any], path) -> dict[str, Any]:
  """The config's `model` section; values given by neither file nor tensors are torchvision's."""
  told = said.get('encoder_options', dict(stem='imagenet', padding='torch',
                                          zero_init_last_scale=False))
  _, options = architecture.encoder_options(params, str(path), stem=told['stem'])
  options |= dict(padding=told['padding'], zero_init_last_scale=told['zero_init_last_scale'],
                  rematerialize=False)
  own = {key: said[key] for key in to_torch.IN_SECTION if said}
  return dict(defaults, encoder='resnet', encoder_options=options, compute_dtype='float32', **own)


def _completed(params, state, section: Mapping[str, Any], seed: int, unknown, path):
  """(parameters, BatchNorm state) of all networks: the file's encoder and initialised heads."""
  name = resnet.ARCHITECTURES[section['encoder_options']['depth']].name
  init = architecture.networks(section, 0).init
  inputs = jax.random.key(seed), jnp.zeros((2, 32, 32, 3))
  shapes, found, differing = jax.eval_shape(init, *inputs), [], []
  for tree, wanted in zip((params, state), shapes):
    found.append({module.replace('resnet/', f'{name}/', 1): arrays
                  for module, arrays in tree.items()})
    if differences := architecture.differences(found[-1], _of(name, wanted)):
      differing.append(str(differences))
  if differing or unknown:
    differing += [f'{len(unknown)} with names unknown to torchvision:',
                  *(f'  {ascii(one)}' for one in unknown)] if unknown else []
    raise InputError(f'{path}: the tensors are not those of a ResNet-'
                     f'{section["encoder_options"]["depth"]} (here under our names):\n'
                     + '\n'.join(differing))
  # Only after the check: tensors of another network could need more memory than there is.
  fresh = jax.device_get(jax.jit(init)(*inputs))
  return tuple(dict(initial, **architecture.cast(tree, _of(name, initial), str(path)))
               for tree, initial in zip(found, fresh))


def _of(name: str, tree):
  return {module: arrays for module, arrays in tree.items() if module.startswith(f'{name}/')}
