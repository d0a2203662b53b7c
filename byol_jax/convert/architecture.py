"""Determines the network of an encoder's tensors: depth, width, version and heads."""

from collections.abc import Mapping
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from byol_jax import model, tensors
from byol_jax.encoders import resnet
from byol_jax.errors import InputError

Tree = Mapping[str, Mapping[str, Any]]


class Differences(NamedTuple):
  """How a file's tensors differ from those that a network needs.

  missing: {path: dtype and shape} of the tensors that the file lacks.
  extra: the same for tensors that the network does not have.
  other: {path: both descriptions} of tensors with another shape.
  """

  missing: dict[str, str]
  extra: dict[str, str]
  other: dict[str, str]

  def __bool__(self):
    return any((self.missing, self.extra, self.other))

  def __str__(self):
    return '\n'.join(f'{len(part)} {name}:\n' + '\n'.join(f'  {k} {v}' for k, v in part.items())
                     for name, part in (('missing', self.missing), ('extra', self.extra),
                                        ('of another shape or kind', self.other)) if part)


def encoder_options(params: Tree, where: str, stem: str = 'imagenet'
                    ) -> tuple[str, dict[str, Any]]:
  """The encoder's module name in `params`, and options for `resnet.build`.

  `padding`, `zero_init_last_scale` and `rematerialize` do not affect the tensors and are left
  out.

  Args:
    params: {module: {leaf: array}} under Haiku's names.
    where: the file, for messages.
    stem: the stem of the network; tensors do not determine its stride.

  Raises:
    InputError: the tensors are not those of a ResNet in this package.
  """
  stems = [module for module in params if re.fullmatch(r'[^/]+/~/initial_conv', module)]
  if len(stems) != 1 or 'w' not in params[stems[0]]:
    raise InputError(f'{where}: it has no ResNet: {len(stems)} modules are named '
                     '"NAME/~/initial_conv", but exactly one is needed.')
  name = stems[0].split('/')[0]
  kernel, _, _, channels = (*np.shape(params[stems[0]]['w']), 0, 0, 0, 0)[:4]
  if kernel != resnet.STEMS[stem][0] or channels < 1:
    raise InputError(f'{where}: the stem has a kernel of {kernel} pixels and {channels} channels; '
                     f'a kernel of {resnet.STEMS[stem][0]} is needed. The strides of other stems '
                     'cannot be determined from tensors.')
  inside = f'{name}/~/block_group_0/~/block_0/~/'
  return name, dict(depth=_depth(params, name, inside, channels / 64, where), width=channels / 64,
                    version=2 if f'{name}/~/final_batchnorm' in params else 1, stem=stem,
                    first_projection=f'{inside}shortcut_conv' in params)


def _depth(params: Tree, name: str, inside: str, width: float, where: str) -> int | str:
  """The depth that matches the blocks and channels of the tensors."""
  blocks = []
  for group in range(4):
    numbers = {int(found[1]) for module in params if (found := re.match(
        rf'{re.escape(name)}/~/block_group_{group}/~/block_(\d+)/', module))}
    blocks.append(len(numbers))
  bottleneck = f'{inside}conv_2' in params
  last = params.get(f'{inside}conv_{2 if bottleneck else 1}', {}).get('w')
  channels = np.shape(last)[-1] if np.ndim(last) == 4 else 0
  for depth, known in resnet.ARCHITECTURES.items():
    if (known.blocks == tuple(blocks) and known.bottleneck == bottleneck
        and known.channels[0] * width == channels):
      return depth
  raise InputError(
      f'{where}: a ResNet with {blocks} {"bottleneck" if bottleneck else "basic"} blocks of '
      f'{channels} channels in the first group is not a known depth; known depths are '
      f'{", ".join(map(str, resnet.ARCHITECTURES))}.')


def head_sizes(params: Tree, head: str) -> tuple[int, ...]:
  """The layer sizes of 'projector' or 'predictor'; () if there is none."""
  sizes = []
  while np.ndim(array := params.get(_linear(head, len(sizes)), {}).get('w')) == 2:
    sizes.append(np.shape(array)[1])
  return tuple(sizes)


def _linear(head: str, number: int) -> str:
  return f'{head}/linear_{number}' if number else f'{head}/linear'


def shapes(section: Mapping[str, Any], num_classes: int) -> tuple[Tree, Tree]:
  """Shapes of the parameters and BatchNorm state for a config's `model` section (a plain dict)."""
  return jax.eval_shape(networks(section, num_classes).init, jax.random.key(0),
                        jnp.zeros((2, 32, 32, 3)))


def networks(section: Mapping[str, Any], num_classes: int) -> model.Model:
  """The networks of a config's `model` section in JSON form."""
  plain = {key: tuple(value) if isinstance(value, list) else value
           for key, value in section.items()}
  return model.build(num_classes=num_classes, **plain)


def differences(found: Tree, wanted: Tree) -> Differences:
  """Compares names, shapes and kinds of dtype."""
  have, need = tensors.flat(found), tensors.flat(wanted)
  describe = lambda array: f'{array.dtype}{list(array.shape)}'
  same = lambda path: (have[path].shape == need[path].shape
                       and have[path].dtype.kind == np.dtype(need[path].dtype).kind)
  return Differences(
      {path: describe(need[path]) for path in sorted(need) if path not in have},
      {path: describe(have[path]) for path in sorted(have) if path not in need},
      {path: f'{describe(have[path])}, where {describe(need[path])} is needed'
       for path in sorted(have) if path in need and not same(path)})


def cast(found: Tree, wanted: Tree, where: str) -> Tree:
  """Casts the arrays to the dtypes of `wanted`; raises InputError if values are not finite."""
  tree = {module: {leaf: np.asarray(found[module][leaf], need.dtype)
                   for leaf, need in leaves.items()} for module, leaves in wanted.items()}
  bad = [name for name, array in tensors.flat(tree).items() if not np.isfinite(array).all()]
  if bad:
    raise InputError(f'{where}: {len(bad)} tensors have values that are not finite, {bad[0]} the '
                     'first.')
  return tree
