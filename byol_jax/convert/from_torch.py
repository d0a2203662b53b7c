"""PyTorch's ResNets as checkpoints of ours.

A file says which network it holds by its tensors. Files of `to_torch` also say, in their
metadata, what tensors cannot; the metadata of others are not read.
"""

import base64
from collections.abc import Mapping
import json
import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import checkpoint
from byol_jax.convert import architecture, imported, to_torch, torch_names
from byol_jax.encoders import resnet
from byol_jax.errors import InputError
from byol_jax.train_step import TrainState

ENDINGS = ('.safetensors', '.pth', '.pt', '.bin', '.tar', '.ckpt')
# Names of an encoder's tensors; other parts of a file, such as heads, are not used.
OF_ENCODER = re.compile(r'(conv1|bn1|layer\d+)\.')

Weights = dict[str, np.ndarray]


def read(path: str | os.PathLike, workdir: str | os.PathLike, config: Mapping[str, Any],
         prefix: str | None = None) -> str:
  """Makes a checkpoint of ours of a torchvision or timm ResNet.

  Projector, predictor and their statistics are drawn from the config's seed: there are
  none in the file. The target network begins as the online one.

  Args:
    path: .safetensors, or a file of torch.save, which torch's weights-only loader reads.
    workdir: gets the checkpoint; it may not hold one already.
    config: a pretraining config as JSON has it, whose `model` section is adapted.
    prefix: what stands before the encoder's names, 'module.encoder_q.'; None finds it
      where the file holds one ResNet.

  Returns:
    What was read, in words.

  Raises:
    InputError: the file cannot be read, or its tensors are of no known network; missing
      and extra ones are listed.
  """
  if checkpoint.steps(workdir):
    raise InputError(f'{os.fspath(workdir)} already holds checkpoints; give a new --workdir.')
  weights, metadata = _read(pathlib.Path(path))
  weights, left_out = _without_prefix(weights, prefix, path)
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
      f'images of {data["image_size"]} pixels are taken minus {section["image_mean"]}, divided by '
      f'{section["image_std"]}' + ('' if of_ours else ', which the file does not say')])


def _read(path: pathlib.Path) -> tuple[Weights, dict[str, str]]:
  """(tensors, metadata) of a file; floats as float32."""
  if not path.is_file():
    raise InputError(f'{path}: no such file (--input).')
  if path.suffix not in ENDINGS:
    raise InputError(f'{path}: files that end in {", ".join(ENDINGS)} are read.')
  if path.suffix != '.safetensors':
    return _read_torch(path), {}
  safetensors = torch_names.safetensors_library()
  try:
    with safetensors.safe_open(path, 'np') as file:
      names, metadata = list(file.keys()), file.metadata() or {}
      weights = {name: file.get_tensor(name) for name in names}
  except (safetensors.SafetensorError, TypeError, OSError) as error:
    raise InputError(f'{path} cannot be read as safetensors ({error}).') from error
  # bfloat16 is a dtype of ml_dtypes, of no kind of numpy's own.
  return {name: array if array.dtype.kind in 'biu' else np.asarray(array, np.float32)
          for name, array in weights.items()}, metadata


def _read_torch(path: pathlib.Path) -> Weights:
  try:
    import torch
  except ImportError as error:
    raise InputError(f'{path}: reading it needs PyTorch (pip install torch); a safetensors file '
                     'needs none.') from error
  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  # Damaged and hostile files surface as many kinds of error.
  except Exception as error:
    reason = ascii((str(error).splitlines() or [''])[0][:200])
    raise InputError(f'{path} was refused by torch.load(weights_only=True): '
                     f'{type(error).__name__}: {reason}') from error
  for key in ('state_dict', 'model'):
    if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
      found = found[key]
  if not isinstance(found, Mapping):
    raise InputError(f'{path} holds no state dict.')
  size = path.stat().st_size
  return {str(name): _as_numpy(array, f'{path}, {str(name)[:100]!a}', size)
          for name, array in found.items() if isinstance(array, torch.Tensor)
          # Sparse, quantized and empty-device tensors are of no ResNet.
          and array.layout == torch.strided and not array.is_quantized and not array.is_meta}


def _as_numpy(tensor, where: str, size: int) -> np.ndarray:
  # A tensor can repeat one number of its file without end.
  if tensor.numel() * tensor.element_size() > size:
    raise InputError(f'{where}: a tensor of {tensor.numel():,} numbers, which is larger than the '
                     f'file of {size:,} bytes.')
  tensor = tensor.detach()
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _without_prefix(weights: Weights, prefix: str | None, path) -> tuple[Weights, list[str]]:
  """The encoder's tensors without what stands before their names, and the other names."""
  inner, outer = 'layer1.0.conv1.weight', 'conv1.weight'
  prefixes = [name.removesuffix(inner) for name in weights if name.endswith(inner)]
  prefixes = [found for found in prefixes if found + outer in weights]
  if prefix is None and len(prefixes) != 1:
    choice = f'; choose with --prefix: {", ".join(map(ascii, prefixes))}' if prefixes else ''
    raise InputError(f'{path}: {len(prefixes)} ResNets with torchvision\'s names are in it, where '
                     f'one is needed{choice}. It has {", ".join(map(ascii, list(weights)[:5]))} '
                     '...')
  if prefix is not None and prefix not in prefixes:
    raise InputError(f'{path}: no ResNet with the prefix {prefix!r} is in it; there are '
                     f'{", ".join(map(ascii, prefixes)) or "none"}.')
  prefix = prefixes[0] if prefix is None else prefix
  own = {name.removeprefix(prefix): array for name, array in weights.items()
         if name.startswith(prefix) and OF_ENCODER.match(name.removeprefix(prefix))}
  return own, sorted(name for name in weights
                     if not name.startswith(prefix) or name.removeprefix(prefix) not in own)


def _said(metadata: Mapping[str, str], weights: Weights, path) -> dict[str, Any]:
  """What `to_torch` said in the metadata, checked; {} for the files of others."""
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
             and type(said['image_size']) is int and 1 <= said['image_size'] <= 4096
             and isinstance(source, dict) and type(source.get('licence', '')) is str)
    if not sound:
      raise ValueError('impossible values')
    return dict(said, hidden=_hidden(metadata.get('hidden', ''), weights))
  except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
    raise InputError(f'{path}: its metadata are damaged ({type(error).__name__}: '
                     f'{str(error)[:200]!a}); write it again.') from error


def _hidden(encoded: str, weights: Weights) -> Weights:
  """Haiku's averages before their correction; the running ones where they are the same."""
  names = sorted(name for name in weights if '.running_' in name)
  if not encoded:
    return {name: weights[name] for name in names}
  values = np.frombuffer(base64.b64decode(encoded, validate=True), '<f4')
  ends = np.cumsum([weights[name].size for name in names])
  if len(ends) == 0 or len(values) != ends[-1]:
    raise ValueError('its averages do not fit its tensors')
  return dict(zip(names, np.split(values, ends[:-1])))


def _section(said, params, defaults: Mapping[str, Any], path) -> dict[str, Any]:
  """The config's `model` section; what neither file nor tensors say is torchvision's."""
  told = said.get('encoder_options', dict(stem='imagenet', padding='torch',
                                          zero_init_last_scale=False))
  _, options = architecture.encoder_options(params, str(path), stem=told['stem'])
  options |= dict(padding=told['padding'], zero_init_last_scale=told['zero_init_last_scale'],
                  rematerialize=False)
  own = {key: said[key] for key in to_torch.IN_SECTION if said}
  return dict(defaults, encoder='resnet', encoder_options=options, compute_dtype='float32', **own)


def _completed(params, state, section: Mapping[str, Any], seed: int, unknown, path):
  """(parameters, BatchNorm state) of all networks: the file's encoder, initialised heads."""
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
    differing += [f'{len(unknown)} with names that torchvision has not:',
                  *(f'  {ascii(one)}' for one in unknown)] if unknown else []
    raise InputError(f'{path}: the tensors are not those of a ResNet-'
                     f'{section["encoder_options"]["depth"]} (here under our names):\n'
                     + '\n'.join(differing))
  # Only now: tensors of another network could ask for one that no memory holds.
  fresh = jax.device_get(jax.jit(init)(*inputs))
  return tuple(dict(initial, **architecture.cast(tree, _of(name, initial), str(path)))
               for tree, initial in zip(found, fresh))


def _of(name: str, tree):
  return {module: arrays for module, arrays in tree.items() if module.startswith(f'{name}/')}
