"""Which of a file's tensors are a ResNet's, under which names, and which ResNets are not ours."""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

import numpy as np

from byol_jax.convert.torch_files import StateDicts
from byol_jax.errors import InputError

# Parts of an encoder; other parts of a file, such as heads, are not used.
PARTS = ('conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4')
SHOWN = 10


class Encoder(NamedTuple):
  """A ResNet in a file.

  keys: that lead to its state dict.
  prefix: what stands before its names there.
  parts: {its name of a part: torchvision's}; the same, or the numbers of nn.Sequential.
  """

  keys: tuple[str, ...]
  prefix: str
  parts: dict[str, str]

  @property
  def path(self) -> str:
    """Keys and prefix, as one prefix."""
    return ''.join(f'{key}.' for key in self.keys) + self.prefix


def find(state_dicts: StateDicts, prefix: str | None, path: Any
         ) -> tuple[dict[str, Any], list[str]]:
  """The encoder's tensors under torchvision's names, and what is left over of the file.

  Args:
    state_dicts: of `torch_files.read`.
    prefix: what stands before the encoder's names, with the keys of its state dict before it or
      without; None finds it where there is one ResNet.
    path: of the file, for messages.

  Raises:
    InputError: there is no ResNet, or several and no prefix that chooses one.
  """
  encoders = [one for keys, tensors in state_dicts.items() for one in _encoders(keys, tensors)]
  if not encoders:
    raise InputError(f'{path}: {_none(state_dicts)}')
  # One state dict goes without saying where it lies; keys with dots can give one path to several.
  same = len({one.keys for one in encoders}) == 1
  paths = [one.path for one in encoders]
  shown = [one.prefix if same or paths.count(one.path) > 1 else one.path for one in encoders]
  chosen = encoders
  if prefix is not None:
    chosen = ([one for one, name in zip(encoders, shown) if name == prefix]
              or [one for one in encoders if prefix in (one.prefix, one.path)])
    if not chosen:
      raise InputError(f'{path}: no ResNet {_with(prefix)} is in it; {_others(shown)}.')
  if len(chosen) > 1:
    names = [name for one, name in zip(encoders, shown) if one in chosen]
    if len(set(names)) < len(names):
      raise InputError(f'{path}: {len(chosen)} ResNets {_with(names[0])} are in it, which no '
                       '--prefix tells apart; save the one that is needed alone, by '
                       'torch.save(model.state_dict(), FILE).')
    raise InputError(f'{path}: {len(chosen)} ResNets are in it, where one is needed; choose with '
                     f'--prefix: {_listed(names)}.')
  return _taken(chosen[0], state_dicts)


def _with(prefix: str) -> str:
  return f'with the prefix {ascii(prefix)}' if prefix else 'without a prefix'


def _listed(prefixes: list[str]) -> str:
  return ', '.join(ascii(prefix) if prefix else 'none (--prefix=)' for prefix in prefixes)


def _others(prefixes: list[str]) -> str:
  if len(prefixes) > 1:
    return f'the prefixes of the {len(prefixes)} that are in it are: {_listed(prefixes)}'
  return f'the one that is in it is {_with(prefixes[0])}; leave --prefix out'


def unlike(weights: Mapping[str, np.ndarray]) -> str:
  """Why a ResNet is none of this package, in words; '' where nothing plain is against it."""
  shape = lambda name: np.shape(weights.get(f'layer1.0.{name}.weight', ()))
  first, second, third = map(shape, ('conv1', 'conv2', 'conv3'))
  if 'conv1.bias' in weights:
    return ('its convolutions have biases (as after BatchNorm was folded into them), which the '
            'ResNets here have not')
  if not any(name.endswith('running_mean') for name in weights):
    return ('it has no running statistics of BatchNorm: it is normalised otherwise (GroupNorm), or '
            'was saved without them, and cannot be evaluated here')
  if len(second) == len(third) == 4 and second[0] != second[1]:
    return (f'its convolutions have {second[0] // max(second[1], 1)} groups (ResNeXt), which the '
            'ResNets here have not')
  if len(first) == len(third) == 4 and first[0] * 4 != third[0]:
    return (f'its bottlenecks are {first[0]} channels wide inside and {third[0]} outside (a wide '
            'ResNet of torchvision); here outside is four times inside')
  return ''


def _encoders(keys: tuple[str, ...], tensors: Mapping[str, Any]) -> list[Encoder]:
  """The ResNets of a state dict, in the order of their names."""
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
    # nn.Sequential(*resnet.children()): the stem comes first, the four groups in a row.
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
    return ('its ResNet has a stem of several convolutions (ResNet-D, as timm\'s resnet50d), which '
            'the ResNets here have not.')
  tops = list(dict.fromkeys('.'.join(name.split('.')[:2]) for name in names))
  more = f' and {len(tops) - SHOWN} more' if len(tops) > SHOWN else ''
  return ('no ResNet is in it under the names of torchvision and timm, conv1.weight, '
          'layer1.0.conv1.weight, ..., or of nn.Sequential, 0.weight, 4.0.conv1.weight, ..., with '
          f'any prefix. Its names begin with {", ".join(map(ascii, tops[:SHOWN]))}{more}.')
