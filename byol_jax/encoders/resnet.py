"""ResNets v1 and v2, with the module names of the published BYOL checkpoints."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from byol_jax import ranges
from byol_jax.encoders.convolution import Conv2D
from byol_jax.errors import InputError


class Architecture(NamedTuple):
  """Blocks and channels of the four groups at width 1, and the Haiku name."""

  blocks: tuple[int, int, int, int]
  channels: tuple[int, int, int, int]
  bottleneck: bool
  name: str


_BASIC, _BOTTLENECK = (64, 128, 256, 512), (256, 512, 1024, 2048)

ARCHITECTURES = {
    'tiny': Architecture((1, 1, 1, 1), (8, 8, 8, 8), False, 'tiny_res_net'),
    10: Architecture((1, 1, 1, 1), _BASIC, False, 'res_net10'),
    18: Architecture((2, 2, 2, 2), _BASIC, False, 'res_net18'),
    34: Architecture((3, 4, 6, 3), _BASIC, False, 'res_net34'),
    50: Architecture((3, 4, 6, 3), _BOTTLENECK, True, 'res_net50'),
    101: Architecture((3, 4, 23, 3), _BOTTLENECK, True, 'res_net101'),
    152: Architecture((3, 8, 36, 3), _BOTTLENECK, True, 'res_net152'),
    200: Architecture((3, 24, 36, 3), _BOTTLENECK, True, 'res_net200'),
}
# Kernel size, stride, and whether a 3x3 max pool of stride 2 follows.
STEMS = {'imagenet': (7, 2, True), 'medium': (3, 2, False), 'small': (3, 1, False)}
PADDINGS = ('SAME', 'torch')

OPTIONS = dict(
    # Layers (section 3.3: 50 to 200; 'tiny' has 8 channels, for tests);
    # 10, 18, 34, 50, 101, 152, 200 or 'tiny'
    depth=50,
    width=1.0,  # multiplies all channels (section 3.3: 1 to 4); a number in (0, 64]
    version=1,  # ResNet v1 or v2 (section 3.3: v1); 1 or 2
    # 7x7 stride 2 and a pool ('imagenet'), 3x3 stride 2 ('medium') or 3x3 stride 1
    # ('small'), no pool; 'imagenet', 'medium' or 'small'
    stem='imagenet',
    padding='SAME',  # 'SAME' (reference), or as torchvision; 'SAME' or 'torch'
    first_projection=True,  # projection shortcut in group 0 (reference); True or False
    # The paper used scale 1 (reference README); True or False
    zero_init_last_scale=False,
    # Keep only the outputs of blocks and recompute the rest in the backward pass: less
    # memory, more time; True or False
    rematerialize=False,
)
RANGES = dict(
    depth=ranges.OneOf((*(key for key in ARCHITECTURES if key != 'tiny'), 'tiny')),
    width=ranges.number(0, 64, '(]'), version=ranges.OneOf((1, 2)), stem=ranges.OneOf(tuple(STEMS)),
    padding=ranges.OneOf(PADDINGS), first_projection=ranges.FLAG,
    zero_init_last_scale=ranges.FLAG, rematerialize=ranges.FLAG)

BatchNorm = Callable[..., hk.Module]


def check_options(*, depth: int | str, width: float, version: int, zero_init_last_scale: bool,
                  **_) -> None:
  """Raises InputError if options of `build` conflict with each other."""
  for channels in (64, *ARCHITECTURES[depth].channels):
    scaled = channels * width
    if not float(scaled).is_integer() or scaled < 4:
      raise InputError(f'model.encoder_options.width is {width}, which makes {scaled:g} channels '
                       f'out of {channels}; it must give whole numbers of at least 4.')
  if zero_init_last_scale and version == 2:
    raise InputError('model.encoder_options.zero_init_last_scale exists for version 1 only: a '
                     'version 2 block does not end in a BatchNorm.')


def build(*, batch_norm: BatchNorm, depth: int | str, width: float, version: int, stem: str,
          padding: str, first_projection: bool, zero_init_last_scale: bool,
          rematerialize: bool = False) -> 'ResNet':
  """Makes the encoder inside a Haiku transform.

  Args:
    batch_norm: `batch_norm(name, **kwargs)` makes a normalisation layer.
    depth: a key of ARCHITECTURES.
    width: multiplies all channels, including the stem's (paper: 1, 2, 3, 4).
    version: 1, or 2 for pre-activation blocks.
    stem: 'imagenet' (7x7 stride 2, 3x3 max pool stride 2), 'small' (3x3 stride 1, no
      pool) for images of about 32 pixels, or 'medium' (3x3 stride 2, no pool).
    padding: 'SAME' as in the published checkpoints, or 'torch': symmetric, as in torchvision.
    first_projection: a projection shortcut in group 0 even if the shape does not
      need it; the reference has it in every ResNet, torchvision not in 18 and 34.
    zero_init_last_scale: the last BatchNorm scale of each block starts at 0
      (version 1 only). The paper used 1.
    rematerialize: keeps only the outputs of blocks for the gradient, and recomputes what is
      inside them.
  """
  architecture = ARCHITECTURES[depth]
  block = _BlockV1 if version == 1 else _BlockV2
  shared = dict(batch_norm=batch_norm, padding=padding, bottleneck=architecture.bottleneck)
  if version == 1:
    shared['last_scale_init'] = jnp.zeros if zero_init_last_scale else jnp.ones
  return ResNet(architecture, width, version, stem, first_projection,
                lambda **kwargs: block(**shared, **kwargs),
                lambda *args, **kwargs: _conv(*args, padding=padding, **kwargs),
                batch_norm, padding, rematerialize)


class ResNet(hk.Module):
  """Stem, four groups of blocks, global average pool."""

  def __init__(self, architecture, width, version, stem, first_projection, make_block,
               make_conv, batch_norm, padding, rematerialize):
    super().__init__(name=architecture.name)
    self._padding, self._version = padding, version
    kernel, stride, self._pool = STEMS[stem]
    channels = int(64 * width)
    self._initial_conv = make_conv(channels, kernel, stride, name='initial_conv')
    # Version 2 normalises after the last group instead of after the stem.
    self._norm = batch_norm('initial_batchnorm' if version == 1 else 'final_batchnorm')
    self._groups = []
    for i, (blocks, group_channels) in enumerate(
        zip(architecture.blocks, architecture.channels)):
      group_channels = int(group_channels * width)
      self._groups.append(_Group(
          make_block, blocks, group_channels, stride=1 if i == 0 else 2,
          projection=i > 0 or first_projection or channels != group_channels,
          rematerialize=rematerialize, name=f'block_group_{i}'))

  def __call__(self, images: jax.Array, is_training: bool) -> jax.Array:
    """Normalised images [B, H, W, 3] -> embeddings [B, D]."""
    out = self._initial_conv(images)
    if self._version == 1:
      out = jax.nn.relu(self._norm(out, is_training))
    if self._pool:
      out = _max_pool(out, self._padding)
    for group in self._groups:
      out = group(out, is_training)
    if self._version == 2:
      out = jax.nn.relu(self._norm(out, is_training))
    return jnp.mean(out, axis=(1, 2))


class _Group(hk.Module):
  """Blocks of one resolution; only the first changes shape."""

  def __init__(self, make_block, blocks, channels, stride, projection, rematerialize, name):
    super().__init__(name=name)
    self._rematerialize = rematerialize
    self._blocks = [
        make_block(channels=channels, stride=stride if i == 0 else 1,
                   projection=projection and i == 0, name=f'block_{i}')
        for i in range(blocks)]

  def __call__(self, out, is_training):
    for block in self._blocks:
      apply = functools.partial(block, is_training=is_training)
      # Parameters are created outside of it, where there is nothing to keep.
      if self._rematerialize and not hk.running_init():
        apply = hk.remat(apply)
      out = apply(out)
    return out


class _BlockV1(hk.Module):
  """Convolution, norm, relu; the last norm is added to the shortcut, then relu."""

  def __init__(self, batch_norm, padding, bottleneck, last_scale_init, channels, stride,
               projection, name):
    super().__init__(name=name)
    self._convs = _convs(channels, stride, bottleneck, padding)
    last = len(self._convs) - 1
    self._norms = [
        batch_norm(f'batchnorm_{i}', **(dict(scale_init=last_scale_init) if i == last else {}))
        for i in range(len(self._convs))]
    self._shortcut = None
    if projection:
      self._shortcut = (_conv(channels, 1, stride, padding=padding, name='shortcut_conv'),
                        batch_norm('shortcut_batchnorm'))

  def __call__(self, inputs, is_training):
    shortcut = inputs
    if self._shortcut:
      conv, norm = self._shortcut
      shortcut = norm(conv(inputs), is_training)
    out = inputs
    for i, (conv, norm) in enumerate(zip(self._convs, self._norms)):
      out = norm(conv(jax.nn.relu(out) if i else out), is_training)
    return jax.nn.relu(out + shortcut)


class _BlockV2(hk.Module):
  """Norm, relu, convolution; the shortcut is projected after the first relu."""

  def __init__(self, batch_norm, padding, bottleneck, channels, stride, projection, name):
    super().__init__(name=name)
    self._convs = _convs(channels, stride, bottleneck, padding)
    self._norms = [batch_norm(f'batchnorm_{i}') for i in range(len(self._convs))]
    self._shortcut_conv = None
    if projection:
      self._shortcut_conv = _conv(channels, 1, stride, padding=padding, name='shortcut_conv')

  def __call__(self, inputs, is_training):
    out = shortcut = inputs
    for i, (norm, conv) in enumerate(zip(self._norms, self._convs)):
      out = jax.nn.relu(norm(out, is_training))
      if i == 0 and self._shortcut_conv:
        shortcut = self._shortcut_conv(out)
      out = conv(out)
    return out + shortcut


def _convs(channels, stride, bottleneck, padding):
  """The block's convolutions; in a bottleneck the 3x3 one carries the stride."""
  if bottleneck:
    layers = ((channels // 4, 1, 1), (channels // 4, 3, stride), (channels, 1, 1))
  else:
    layers = ((channels, 3, stride), (channels, 3, 1))
  return [_conv(*layer, padding=padding, name=f'conv_{i}') for i, layer in enumerate(layers)]


def _conv(channels, kernel, stride, *, padding, name):
  # SAME pads a stride-2 convolution of an even image on one side only; torch
  # pads both sides. Weights trained with one lose accuracy under the other.
  pad = 'SAME' if padding == 'SAME' else [(kernel // 2, kernel // 2)] * 2
  return Conv2D(channels, kernel, stride, padding=pad, name=name)


def _max_pool(out, padding):
  if padding == 'SAME':
    return hk.max_pool(out, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
  return jax.lax.reduce_window(out, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
                               ((0, 0), (1, 1), (1, 1), (0, 0)))
