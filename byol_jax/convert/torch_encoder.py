"""Finds the ResNet among a file's tensors, and explains which ResNets are not supported."""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

import numpy as np

from byol_jax.convert.torch_files import StateDicts
from byol_jax.errors import InputError

# The parts of an encoder; other parts of a file, such as heads, are not used.
PARTS = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')
SHOWN = 10


class Encoder(NamedTuple):
  """A ResNet in a file.

  keys: keys that lead to its state dict.
  prefix: prefix of its names there.
  parts: {name of a part in the file: torchvision's name}; the same, or nn.Sequential numbers.
  """

  keys: tuple[str, ...]
  prefix: str
  parts: dict[str, str]

  @property
  def path(self) -> str:
    """Keys and prefix joined into one prefix."""
    return ''.join(f'{key}.' for key in self.keys) + self.prefix


def find(state_dicts: StateDicts, prefix: str | None, path: Any
         ) -> tuple[dict[str, Any], list[str]]:
  """The encoder's tensors under torchvision's names, and the unused names of the file.

  Args:
    state_dicts: from `torch_files.read`.
    prefix: prefix of the encoder's names, with or without the keys of its state dict; None
      finds it if there is only one ResNet.
    path: the file, for messages.

  Raises:
    InputError: there is no ResNet, or there are several and the prefix does not choose one.
  """
  encoders = [one for keys, tensors in state_dicts.items() for one in _encoders(keys, tensors)]
  if not encoders:
    raise InputError(f'{path}: {_none(state_dicts)}')
  # A single state dict needs no keys; keys with dots can give several state dicts the same path.
  same = len({one.keys for one in encoders}) == 1
  paths = [one.path for one in encoders]
  shown = [one.prefix if same or paths.count(one.path) > 1 else one.path for one in encoders]
  chosen = encoders
  if prefix is not None:
    chosen = ([one for one, name in zip(encoders, shown) if name == prefix]
              or [one for one in encoders if prefix in (one.prefix, one.path)])
    if not chosen:
      raise InputError(f'{path}: it has no ResNet {_with(prefix)}; {_others(shown)}.')
  if len(chosen) > 1:
    names = [name for one, name in zip(encoders, shown) if one in chosen]
    if len(set(names)) < len(names):
      raise InputError(f'{path}: it has {len(chosen)} ResNets {_with(names[0])}, which --prefix '
                       'cannot tell apart; save only the one that is needed, with '
                       'torch.save(model.state_dict(), FILE).')
    raise InputError(f'{path}: it has {len(chosen)} ResNets, but one is needed; choose with '
                     f'--prefix: {_listed(names)}.')
  return _taken(chosen[0], state_dicts)


def _with(prefix: str) -> str:
  return f'with the prefix {ascii(prefix)}' if prefix else 'without a prefix'


def _listed(prefixes: list[str]) -> str:
  return ', '.join(ascii(prefix) if prefix else 'none (--prefix=)' for prefix in prefixes)


def _others(prefixes: list[str]) -> str:
  if len(prefixes) > 1:
    return f'the {len(prefixes)} that it has have the prefixes: {_listed(prefixes)}'
  return f'the one that it has is {_with(prefixes[0])}; leave --prefix out'


def unlike(weights: Mapping[str, np.ndarray]) -> str:
  """Why a ResNet is not supported by this package; '' if no reason is obvious."""
  shape = lambda name: np.shape(weights.get(f'layer1.0.{name}.weight', ()))
  first, second, third = map(shape, ('conv1', 'conv2', 'conv3'))
  if 'conv1.bias' in weights:
    return ('its convolutions have biases (as if BatchNorm was folded into them), unlike the '
            'ResNets here')
  if not any(name.endswith('running_mean') for name in weights):
    return ('it has no running statistics of BatchNorm: it has another normalisation (GroupNorm) '
            'or was saved without them, and cannot be evaluated here')
  if len(second) == len(third) == 4 and second[0] != second[1]:
    return (f'its convolutions have {second[0] // max(second[1], 1)} groups (ResNeXt), unlike '
            'the ResNets here')
  if len(first) == len(third) == 4 and first[0] * 4 != third[0]:
    return (f'its bottlenecks are {first[0]} channels wide inside and {third[0]} outside (a wide '
            'ResNet of torchvision); here the outside is four times as wide as the inside')
  return ''


def _encoders(keys: tuple[str, ...], tensors: Mapping[str, Any]) -> list[Encoder]:
  """The ResNets of a state dict, ordered by name."""
  found = {}
  numbers: dict[str, list[int]] = {}
  for name in tensors:
    if name.endswith('layer1.0.conv1.weight'):
      prefix = name.removesuffix('layer1.0.conv1.weight')
      if f'{prefix}conv1.weight' in tensors:
        found[prefix] = Encoder(keys, prefix, {part: part for part in PARTS})
    elif match := re.fullmatch(r'((?:.*\.)?)(\d{1,2})\.0\.conv1\.weight', name, re.ASCII | re.S):
      numbers.setdefault(match[1], []).append(int(match[2]))
  for prefix, layers in numbers.items():
    # nn.Sequential(*resnet.children()): first the stem, then the four groups.
    begin = min(layers)
    if (sorted(layers) == list(range(begin, begin + 4))
        and {f'{prefix}0.weight', f'{prefix}1.running_mean'} <= set(tensors)):
      order = ('0', '1', *map(str, range(begin, begin + 4)))
      found[prefix] = Encoder(keys, prefix, dict(zip(order, PARTS)))
  return list(found.values())


def _taken(encoder: Encoder, state_dicts: StateDicts) -> tuple[dict[str, Any], list[str]]:
  own, left = {}, []
  for name, tensor in state_dicts[encoder.keys].items():
    part, dot, rest = name.removeprefix(encoder.prefix).partition('.')
    if name.startswith(encoder.prefix) and part in encoder.parts and dot:
      own[f'{encoder.parts[part]}.{rest}'] = tensor
    else:
      left.append(name)
  others = set()
  for keys in state_dicts.keys() - {encoder.keys}:
    common = next((i for i, (a, b) in enumerate(zip(keys, encoder.keys)) if a != b),
                  min(len(keys), len(encoder.keys)))
    others.add('.'.join(keys[:common + 1]) or 'tensors at the top')
  return own, sorted(left) + sorted(others)


def _none(state_dicts: StateDicts) -> str:
  """Why no ResNet was found."""
  names = [''.join(f'{key}.' for key in keys) + name
           for keys, tensors in state_dicts.items() for name in tensors]
  deep = [name.removesuffix('layer1.0.conv1.weight') for name in names
          if name.endswith('layer1.0.conv1.weight')]
  if any(f'{prefix}conv1.0.weight' in names for prefix in deep):
    return ('its ResNet has a stem of several convolutions (ResNet-D, like timm\'s resnet50d), '
            'unlike the ResNets here.')
  tops = list(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))
  more = f' and {len(tops) - SHOWN} more' if len(tops) > SHOWN else ''
  return ('it has no ResNet under the names of torchvision and timm, conv1.weight, '
          'layer1.0.conv1.weight, ..., or of nn.Sequential, 0.weight, 4.0.conv1.weight, ..., with '
          f'any prefix. Its names start with {", ".join(map(ascii, tops[:SHOWN]))}{more}.')
