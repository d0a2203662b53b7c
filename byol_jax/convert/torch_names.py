"""Converts the encoder's tensors to torchvision's names and back; pure functions of arrays.

Convolutions are [H, W, in, out] here and [out, in, H, W] there. BatchNorm's parameters
have leading dimensions of 1 here. timm's ResNets have the same names as torchvision's.
"""

from collections.abc import Mapping
import re
import types

import numpy as np

from byol_jax.errors import InputError

Tree = dict[str, dict[str, np.ndarray]]
Weights = dict[str, np.ndarray]

# Haiku corrects averages over fewer batches than this for their start at zero, torch does
# not; from this number on the correction is exactly 1 in float32.
SETTLED = 1000
OF_BATCH_NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def safetensors_library() -> types.ModuleType:
  """The safetensors library, which only these conversions need."""
  try:
    import safetensors.numpy
  except ImportError as error:
    raise InputError('Weights for PyTorch need safetensors: pip install "safetensors>=0.7".'
                     ) from error
  return safetensors


def to_torch(params: Mapping, state: Mapping, encoder: str) -> tuple[Weights, Weights]:
  """Converts the encoder named `encoder` in our trees to torchvision's names.

  Returns:
    (weights, hidden): a state dict, and {name of a running statistic: Haiku's moving average
    before its correction}, which has no counterpart in torch.
  """
  weights, hidden = {}, {}
  for module, leaves in params.items():
    if not module.startswith(f'{encoder}/~/'):
      continue
    name = _torch_module(module.removeprefix(f'{encoder}/~/'))
    if 'w' in leaves:
      weights[f'{name}.weight'] = np.transpose(leaves['w'], (3, 2, 0, 1))
      continue
    weights[f'{name}.weight'] = np.reshape(leaves['scale'], -1)
    weights[f'{name}.bias'] = np.reshape(leaves['offset'], -1)
    for ours, theirs in (('mean_ema', 'running_mean'), ('var_ema', 'running_var')):
      average = state[f'{module}/~/{ours}']
      weights[f'{name}.{theirs}'] = np.reshape(average['average'], -1)
      hidden[f'{name}.{theirs}'] = np.reshape(average['hidden'], -1)
    weights[f'{name}.num_batches_tracked'] = np.asarray(average['counter'], np.int64)
  # A transposed view would be written to the file in memory order.
  return {name: np.array(array, order='C') for name, array in weights.items()}, hidden


def from_torch(weights: Mapping[str, np.ndarray], encoder: str, hidden: Weights | None
               ) -> tuple[Tree, Tree, list[str]]:
  """Converts a state dict to (parameters, BatchNorm state, unknown names).

  Args:
    weights: arrays under torchvision's names, without a prefix.
    encoder: name of our encoder.
    hidden: the value from `to_torch`; None for other weights, whose averages are assumed
      to need no correction.

  Raises:
    InputError: a tensor has another number of dimensions than its name requires.
  """
  params, state, unknown = {}, {}, []
  for name, array in weights.items():
    place, leaf = name.rpartition('.')[::2]
    module = _haiku_module(place)
    if module is None:
      unknown.append(name)
      continue
    module = f'{encoder}/~/{module}'
    convolution = module.endswith('conv') or '/conv_' in module
    if leaf not in (('weight',) if convolution else OF_BATCH_NORM):
      unknown.append(name)
      continue
    if np.ndim(array) != (4 if convolution else leaf != 'num_batches_tracked'):
      raise InputError(f'{name} has {np.ndim(array)} dimensions, which its name does not let '
                       'expect.')
    if convolution:
      params[module] = dict(w=np.ascontiguousarray(np.transpose(array, (2, 3, 1, 0))))
    elif leaf in ('weight', 'bias'):
      ours = 'scale' if leaf == 'weight' else 'offset'
      params.setdefault(module, {})[ours] = np.reshape(array, (1, 1, 1, -1))
    elif leaf in ('running_mean', 'running_var'):
      kind = 'mean_ema' if leaf == 'running_mean' else 'var_ema'
      count = np.asarray(weights.get(f'{place}.num_batches_tracked', SETTLED))
      state[f'{module}/~/{kind}'] = dict(
          average=np.reshape(array, (1, 1, 1, -1)),
          hidden=np.reshape(array if hidden is None else hidden[name], (1, 1, 1, -1)),
          counter=np.asarray(np.clip(count, SETTLED if hidden is None else 0, 2 ** 31 - 1),
                             np.int32))
  return params, state, unknown


def _torch_module(module: str) -> str:
  if not module.startswith('block_group'):
    return {'initial_conv': 'conv1', 'initial_batchnorm': 'bn1'}[module]
  group, block, layer = module.split('/~/')
  number = lambda text: int(text.rpartition('_')[2])
  inner = {'shortcut_conv': 'downsample.0', 'shortcut_batchnorm': 'downsample.1'}.get(layer)
  if inner is None:
    inner = f'{"conv" if layer.startswith("conv") else "bn"}{number(layer) + 1}'
  return f'layer{number(group) + 1}.{number(block)}.{inner}'


def _haiku_module(name: str) -> str | None:
  """Our name for a torch module; None if there is none."""
  if name in ('conv1', 'bn1'):
    return {'conv1': 'initial_conv', 'bn1': 'initial_batchnorm'}[name]
  found = re.fullmatch(r'layer([1-4])\.(\d{1,3})\.(conv|bn|downsample\.)([0-3])', name, re.ASCII)
  if not found:
    return None
  group, block, kind, number = int(found[1]) - 1, int(found[2]), found[3], int(found[4])
  if kind == 'downsample.':
    layer = {0: 'shortcut_conv', 1: 'shortcut_batchnorm'}.get(number)
  else:
    layer = f'{"conv" if kind == "conv" else "batchnorm"}_{number - 1}' if number else None
  return layer and f'block_group_{group}/~/block_{block}/~/{layer}'
