import functools
import math

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import plugins
from byol_jax.encoders import resnet
from byol_jax.errors import InputError

OPTIONS = dict(depth=50, width=1., version=1, stem='imagenet', padding='SAME',
               first_projection=True, zero_init_last_scale=False)
NORM = dict(create_scale=True, create_offset=True, decay_rate=.9, eps=1e-5)


def network(*, is_training=True, **options):
  """The encoder alone, as a Haiku transform of images."""
  def forward(images):
    encoder = resnet.build(batch_norm=lambda name, **kwargs: hk.BatchNorm(
        name=name, **NORM, **kwargs), **(OPTIONS | options))
    return encoder(images, is_training)
  return hk.without_apply_rng(hk.transform_with_state(forward))


@functools.cache
def shapes(**options):
  """Parameters and state as shapes; nothing is computed."""
  return jax.eval_shape(network(**options).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def size(params):
  return sum(math.prod(array.shape) for array in jax.tree.leaves(params))


def shape_tree(params):
  return {module: {name: array.shape for name, array in arrays.items()}
          for module, arrays in params.items()}


@pytest.mark.parametrize('options, expected', [
    # torchvision's, without the last layer.
    (dict(depth=18, first_projection=False), 11_176_512),
    (dict(depth=34, first_projection=False), 21_284_672),
    (dict(depth=50), 23_508_032),
    (dict(depth=50, first_projection=False), 23_508_032),
    (dict(depth=101), 42_500_160),
    (dict(depth=152), 58_143_808),
    # The projection shortcut of group 0: 64 x 64 weights and a BatchNorm.
    (dict(depth=18), 11_176_512 + 64 * 64 + 2 * 64),
    (dict(depth=50, stem='small'), 23_508_032 - (49 - 9) * 3 * 64)])
def test_number_of_parameters(options, expected):
  assert size(shapes(**options)[0]) == expected


@pytest.mark.parametrize('depth, width, millions', [(50, 2., 94), (50, 4., 375), (200, 2., 250)])
def test_wide_networks_have_the_size_of_the_paper(depth, width, millions):
  assert round(size(shapes(depth=depth, width=width)[0]) / 1e6) == millions


@functools.cache
def haiku_network(width=1, version=1, depth=50, **options):
  """Haiku's own ResNet, whose last layer is set to the identity."""
  config = hk.nets.ResNet.CONFIGS[50] | options
  channels = [channels * width for channels in config.pop('channels_per_group')]
  identity = lambda shape, dtype: jnp.eye(*shape, dtype=dtype)

  def forward(images):
    return hk.nets.ResNet(
        **config, num_classes=channels[-1], channels_per_group=channels, bn_config=NORM,
        resnet_v2=version == 2, logits_config=dict(w_init=identity),
        initial_conv_config=dict(output_channels=64 * width), name=f'res_net{depth}')(
            images, is_training=True)
  return hk.without_apply_rng(hk.transform_with_state(forward))


def without_logits(params):
  return {module: arrays for module, arrays in params.items() if not module.endswith('logits')}


@pytest.mark.parametrize('width, version', [(1, 1), (2, 1), (4, 1), (1, 2)])
def test_names_and_shapes_are_those_of_haiku(width, version):
  params, state = shapes(width=float(width), version=version)
  theirs, their_state = jax.eval_shape(haiku_network(width, version).init, jax.random.key(0),
                                       jnp.zeros((1, 32, 32, 3)))
  assert shape_tree(params) == shape_tree(without_logits(theirs))
  assert shape_tree(state) == shape_tree(their_state)


def randomized(transformed, images):
  """Random parameters, and the state as it starts: at zero."""
  random = np.random.default_rng(0)
  params, state = jax.eval_shape(transformed.init, jax.random.key(0), images)
  return (jax.tree.map(lambda x: random.choice([-1, 1], x.shape).astype(np.float32) *
                       random.uniform(.1, .4, x.shape).astype(np.float32), params),
          jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state))


@pytest.fixture(params=[True, False], ids=['bottleneck', 'basic'])
def small(request, monkeypatch):
  """The architecture under the depth 'small'."""
  architecture = resnet.Architecture((2, 1, 1, 1), (8, 8, 16, 16), request.param, 'res_net50')
  monkeypatch.setitem(resnet.ARCHITECTURES, 'small', architecture)
  return architecture


@pytest.mark.parametrize('version', [1, 2])
def test_outputs_and_statistics_equal_those_of_haiku(small, version):
  images = np.random.default_rng(1).normal(size=(3, 21, 20, 3)).astype(np.float32)
  ours = network(depth='small', version=version)
  theirs = haiku_network(version=version, bottleneck=small.bottleneck,
                         blocks_per_group=small.blocks, channels_per_group=small.channels)
  params, state = randomized(ours, images)
  logits = {'res_net50/~/logits': dict(w=np.eye(16, dtype=np.float32),
                                       b=np.zeros(16, np.float32))}
  embedding, new_state = jax.jit(ours.apply)(params, state, images)
  expected, expected_state = jax.jit(theirs.apply)(params | logits, state, images)
  assert embedding.shape == (3, 16) and np.std(expected) > .1
  np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)
  for ours, theirs in zip(jax.tree.leaves(new_state), jax.tree.leaves(expected_state)):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def recorded(forward, name_of):
  """A function of images that returns (input, output) of the module calls, by name."""
  def run(images):
    calls = {}

    def record(next_function, args, kwargs, context):
      result = next_function(*args, **kwargs)
      if context.method_name == '__call__' and (name := name_of(context.module)):
        calls[name] = args[0], result
      return result

    with hk.intercept_methods(record):
      forward(images)
    return calls
  return run


@pytest.mark.parametrize('stem, sides', [
    ('imagenet', (32, 16, 8, 4, 2)), ('medium', (32, 32, 16, 8, 4)),
    ('small', (64, 64, 32, 16, 8))])
@pytest.mark.parametrize('padding', resnet.PADDINGS)
def test_resolution_after_the_stem_and_each_group(stem, sides, padding):
  transformed = network(depth='tiny', stem=stem, padding=padding)
  images = jnp.zeros((1, 64, 64, 3))
  variables = jax.eval_shape(transformed.init, jax.random.key(0), images)
  names = ['initial_conv', *(f'block_group_{i}' for i in range(4))]
  run = recorded(lambda args: transformed.apply(*args), lambda module: (
      module.name if module.name in names else None))
  calls = jax.eval_shape(run, (*variables, images))
  assert [calls[name][1].shape[1:3] for name in names] == [(side, side) for side in sides]


def windows(x, kernel, stride, padding, value):
  """NumPy view [B, H, W, C, kernel, kernel] of the padded windows."""
  pad = [(0, 0)]
  for n in x.shape[1:3]:
    total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
    pad.append((total // 2, total - total // 2) if padding == 'SAME' else (kernel // 2,) * 2)
  x = np.pad(x, (*pad, (0, 0)), constant_values=value)
  x = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))
  return x[:, ::stride, ::stride]


@pytest.mark.parametrize('padding', resnet.PADDINGS)
def test_padding_of_convolutions_and_pool_against_numpy(padding):
  transformed = network(depth='tiny', padding=padding)
  images = np.random.default_rng(0).normal(size=(2, 20, 26, 3)).astype(np.float32)
  params, state = randomized(transformed, images)
  run = recorded(lambda images: transformed.apply(params, state, images),
                 lambda module: module.module_name)
  calls = jax.tree.map(np.asarray, jax.jit(run)(images))
  root = 'tiny_res_net/~/'
  convolutions = [name for name in params if 'w' in params[name]]
  assert len(convolutions) == 13
  for name in convolutions:
    given, result = calls[name]
    stride = 2 if name == f'{root}initial_conv' or (
        name.endswith(('conv_0', 'shortcut_conv')) and 'group_0' not in name) else 1
    weights = params[name]['w']
    expected = np.einsum('bhwcij,ijco->bhwo', windows(
        given, weights.shape[0], stride, padding, 0.), weights)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4, err_msg=name)
  pooled = windows(np.maximum(calls[f'{root}initial_batchnorm'][1], 0), 3, 2, padding, -np.inf)
  np.testing.assert_array_equal(calls[f'{root}block_group_0'][0], pooled.max(axis=(4, 5)))


@pytest.mark.parametrize('zero_init', [True, False])
def test_zero_init_last_scale_starts_the_last_norm_of_each_block_at_zero(small, zero_init):
  transformed = network(depth='small', zero_init_last_scale=zero_init)
  scales = jax.jit(lambda key: {
      name: arrays['scale'] for name, arrays in transformed.init(
          key, jnp.zeros((1, 16, 16, 3)))[0].items() if 'scale' in arrays})(jax.random.key(0))
  last = 'batchnorm_2' if small.bottleneck else 'batchnorm_1'
  assert sum(name.endswith(last) for name in scales) == 5
  for name, scale in scales.items():
    np.testing.assert_array_equal(scale, 0. if zero_init and name.endswith(last) else 1.)


def test_without_first_projection_group_0_has_one_only_where_the_shape_changes():
  def has_projection(depth, **options):
    params, _ = shapes(depth=depth, first_projection=False, **options)
    return f'res_net{depth}/~/block_group_0/~/block_0/~/shortcut_conv' in params
  assert [has_projection(18), has_projection(34), has_projection(50)] == [False, False, True]


@pytest.mark.parametrize('options, message', [
    (dict(depth=51), "depth is 51; it can be 10, 18, 34, 50, 101, 152, 200 or 'tiny'"),
    (dict(depth='50'), "depth is '50'; it can be 10"),
    (dict(version=2, zero_init_last_scale=True), 'zero_init_last_scale exists for version 1 only'),
    (dict(width=.3), r'width is 0\.3, which makes 19\.2 channels out of 64; it must give whole'),
    (dict(width=.03125), r'width is 0\.03125, which makes 2 channels out of 64'),
    (dict(depth='tiny', width=.25), r'width is 0\.25, which makes 2 channels out of 8')])
def test_impossible_options_are_named(options, message):
  with pytest.raises(InputError, match=message):
    plugins.function('encoders', 'resnet', 'build', OPTIONS | options)
