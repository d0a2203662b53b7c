import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import model
from byol_jax.distributed import parallel
from byol_jax.errors import InputError

ENCODER = '''
import haiku as hk
import jax
import jax.numpy as jnp

def build(*, batch_norm, channels):
  def encoder(images, is_training):
    out = hk.Conv2D(channels, 1, with_bias=False, name='conv')(images)
    return jnp.mean(jax.nn.relu(batch_norm('norm')(out, is_training)), axis=(1, 2))
  return encoder
'''
MEAN, STD, DECAY, EPSILON = (.4, .5, .6), (.2, .25, .3), .75, 1e-3
BATCH = 8


@pytest.fixture(scope='module')
def build(tmp_path_factory):
  """Builds networks around an encoder of one pointwise convolution, given by dotted path."""
  folder = tmp_path_factory.mktemp('encoders')
  (folder / 'own_encoders').mkdir()
  (folder / 'own_encoders' / '__init__.py').write_text('')
  (folder / 'own_encoders' / 'pointwise.py').write_text(ENCODER)

  def call(**options):
    return model.build(**(dict(
        encoder='own_encoders.pointwise', encoder_options=dict(channels=5), projector=(6, 4),
        predictor=(7, 4), num_classes=3, batch_norm_decay=DECAY, batch_norm_epsilon=EPSILON,
        compute_dtype='float32', image_mean=MEAN, image_std=STD) | options))

  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield call
  for name in ('own_encoders.pointwise', 'own_encoders'):
    sys.modules.pop(name, None)


def draw_images(seed, count=BATCH):
  return np.random.default_rng(seed).random((count, 3, 4, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def variables(build):
  """Parameters that are all different from their defaults, and the state at the start."""
  params, state = jax.jit(build().init)(jax.random.key(0), draw_images(0))
  random = np.random.default_rng(1)
  return jax.tree.map(lambda x: x + random.uniform(.1, .3, x.shape).astype(np.float32),
                      params), state


def train_passes(networks, variables, batches, devices):
  """Training passes one after another, whole batches in and out."""
  params, state = (parallel.replicate(tree, devices) for tree in variables)

  def step(carried, images):
    outputs, state = networks.apply(*carried, images, True)
    return outputs, parallel.mean_over_devices(state)

  step = parallel.pmap_evaluation(step, devices)
  results = []
  for images in batches:
    outputs, states = step((params, state), parallel.shard_batch(images, devices))
    state = jax.tree.map(lambda x: x[0], states)
    results.append(jax.tree.map(lambda x: np.asarray(x).reshape(BATCH, -1), outputs))
  return results, parallel.fetch(state)


class Reference:
  """The networks in NumPy; `statistics` holds (mean, variance) of each BatchNorm."""

  def __init__(self, params, statistics=None):
    self.params, self.given, self.statistics = params, statistics, {}

  def norm(self, name, x):
    axes = tuple(range(x.ndim - 1))
    mean, variance = self.given[name] if self.given else (x.mean(axes), x.var(axes))
    self.statistics[name] = mean, variance
    p = {key: np.ravel(value) for key, value in self.params[name].items()}
    return (x - mean) / np.sqrt(variance + EPSILON) * p['scale'] + p['offset']

  def head(self, name, x):
    first, last = self.params[f'{name}/linear'], self.params[f'{name}/linear_1']
    x = self.norm(f'{name}/batch_norm', x @ first['w'] + first['b'])
    return np.maximum(x, 0) @ last['w']

  def __call__(self, images):
    x = (images.astype(np.float64) - MEAN) / STD @ self.params['conv']['w'][0, 0]
    embedding = np.maximum(self.norm('norm', x), 0).mean(axis=(1, 2))
    projection = self.head('projector', embedding)
    classifier = self.params['classifier']
    return model.Outputs(embedding, projection, self.head('predictor', projection),
                         embedding @ classifier['w'] + classifier['b'])


def assert_outputs_close(actual, expected, atol=1e-4):
  for name, ours, theirs in zip(model.Outputs._fields, actual, expected):
    np.testing.assert_allclose(ours, theirs, atol=atol, err_msg=name)


def test_a_training_pass_uses_the_whole_batch_on_any_number_of_devices(
    build, variables, devices):
  batches = [draw_images(2), 2 * draw_images(3)]
  results, state = train_passes(build(), variables, batches, devices)
  statistics = []
  for images, outputs in zip(batches, results):
    reference = Reference(jax.tree.map(np.asarray, variables[0]))
    assert_outputs_close(outputs, reference(images))
    statistics.append(reference.statistics)
  # The averages of two batches, without the bias of their start at zero.
  weights = np.array([DECAY * (1 - DECAY), 1 - DECAY]) / (1 - DECAY ** 2)
  for name in statistics[0]:
    for i, which in enumerate(('mean_ema', 'var_ema')):
      expected = sum(weight * batch[name][i] for weight, batch in zip(weights, statistics))
      np.testing.assert_allclose(np.ravel(state[f'{name}/~/{which}']['average']), expected,
                                 rtol=1e-4, atol=1e-5, err_msg=f'{name} {which}')


def test_heads_can_end_in_a_norm_without_scale_and_offset(build):
  networks = build(projector_output_norm=True, predictor_output_norm=True)
  variables = jax.jit(networks.init)(jax.random.key(0), draw_images(0))
  assert not any(variables[0].get(f'{head}/batch_norm_1') for head in ('projector', 'predictor'))
  (outputs,), state = train_passes(networks, variables, [draw_images(2)], jax.devices()[:1])
  normalized = lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + EPSILON)
  reference = Reference(jax.tree.map(np.asarray, variables[0]))
  embedding = reference(draw_images(2)).embedding
  projection = normalized(reference.head('projector', embedding))
  np.testing.assert_allclose(outputs.projection, projection, atol=1e-3)
  np.testing.assert_allclose(
      outputs.prediction, normalized(reference.head('predictor', projection)), atol=1e-3)
  assert 'predictor/batch_norm_1/~/mean_ema' in state


def test_the_encoder_alone_trains_as_within_the_networks(build, variables):
  """On its own parameters, and with the decay that it was built with."""
  params, state = (model.encoder_only(tree) for tree in variables)
  assert set(params) == {'conv', 'norm'}
  images = draw_images(2)
  step = parallel.pmap_evaluation(
      lambda variables, images: build(num_classes=0).encode_in_training(*variables, images),
      jax.devices()[:1])
  embedding, moved = step((params, state), images[None])
  [whole], all_moved = train_passes(build(), variables, [images], jax.devices()[:1])
  np.testing.assert_allclose(embedding[0], whole.embedding, rtol=1e-5)
  for module, values in moved.items():
    for name, value in values.items():
      np.testing.assert_allclose(value[0], all_moved[module][name], rtol=1e-5)


@pytest.fixture(scope='module')
def trained(build, variables):
  """Variables after a training pass."""
  _, state = train_passes(build(), variables, [draw_images(2)], jax.devices()[:1])
  return variables[0], state


def test_an_evaluation_uses_the_running_statistics_and_keeps_them(build, trained):
  params, state = trained
  names = ('norm', 'projector/batch_norm', 'predictor/batch_norm')
  statistics = {name: tuple(np.ravel(state[f'{name}/~/{which}']['average'])
                            for which in ('mean_ema', 'var_ema')) for name in names}
  images = draw_images(5)
  outputs, new_state = build().apply(params, state, images, False)
  assert_outputs_close(outputs, Reference(jax.tree.map(np.asarray, params), statistics)(images))
  jax.tree.map(np.testing.assert_array_equal, new_state, state)


def test_encode_gives_the_embedding_whatever_the_rest_of_the_batch(build, trained):
  images = draw_images(5)
  encode = jax.jit(build().encode)
  embeddings = encode(*trained, images)
  outputs, _ = build().apply(*trained, images, False)
  np.testing.assert_allclose(embeddings, outputs.embedding, atol=1e-6)
  np.testing.assert_allclose(encode(*trained, images[3:4]), embeddings[3:4], atol=1e-6)


def test_the_classifier_teaches_the_encoder_nothing(build, trained):
  params, state = trained
  gradients = jax.jit(jax.grad(lambda params: jnp.sum(jnp.square(
      build().apply(params, state, draw_images(5), False)[0].logits))))(params)
  for module, arrays in gradients.items():
    for array in arrays.values():
      assert np.any(array != 0) == (module == 'classifier'), module


def test_bfloat16_computes_coarser_and_keeps_everything_in_float32(build, variables):
  images = draw_images(2)
  networks = build(compute_dtype='bfloat16')
  params, state = jax.jit(networks.init)(jax.random.key(0), images)
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
  (coarse,), state = train_passes(networks, variables, [images], jax.devices()[:1])
  assert all(x.dtype == np.float32 or name.endswith('_ema') and key == 'counter'
             for name, arrays in state.items() for key, x in arrays.items())
  (fine,), fine_state = train_passes(build(), variables, [images], jax.devices()[:1])
  for ours, theirs in zip(coarse, fine):
    assert ours.dtype == np.float32
    assert 1e-5 < np.abs(ours - theirs).max() < .05 * np.abs(theirs).max()
  for name, arrays in fine_state.items():
    np.testing.assert_allclose(state[name]['average'], arrays['average'], rtol=.05, atol=.05)


def shapes(networks, side=8):
  params, state = jax.eval_shape(networks.init, jax.random.key(0), jnp.zeros((2, side, side, 3)))
  return {module: {name: array.shape for name, array in arrays.items()}
          for module, arrays in params.items()}


def test_names_and_shapes_of_the_published_checkpoints(build):
  options = dict(depth=50, width=1., version=1, stem='imagenet', padding='SAME',
                 first_projection=True, zero_init_last_scale=False)
  params = shapes(build(encoder='resnet', encoder_options=options, projector=(4096, 256),
                        predictor=(4096, 256), num_classes=1000), side=32)
  norm = dict(scale=(4096,), offset=(4096,))
  assert {module: arrays for module, arrays in params.items()
          if not module.startswith('res_net50/')} == {
              'projector/linear': dict(w=(2048, 4096), b=(4096,)),
              'projector/batch_norm': {name: (1, 4096) for name in norm},
              'projector/linear_1': dict(w=(4096, 256)),
              'predictor/linear': dict(w=(256, 4096), b=(4096,)),
              'predictor/batch_norm': {name: (1, 4096) for name in norm},
              'predictor/linear_1': dict(w=(4096, 256)),
              'classifier': dict(w=(2048, 1000), b=(1000,))}
  assert params['res_net50/~/initial_conv'] == dict(w=(7, 7, 3, 64))
  assert params['res_net50/~/block_group_3/~/block_2/~/conv_2'] == dict(w=(1, 1, 512, 2048))


def test_unlabelled_data_has_no_classifier(build, trained):
  networks = build(num_classes=0)
  assert 'classifier' not in shapes(networks)
  outputs, _ = networks.apply(*trained, draw_images(5), False)
  assert outputs.logits is None


@pytest.mark.parametrize('sizes', [(4,), (9, 8, 4)])
def test_heads_of_any_depth(build, sizes):
  params = shapes(build(projector=sizes, predictor=sizes))
  for head, inputs in (('projector', 5), ('predictor', 4)):
    expected = {}
    for i, (before, after) in enumerate(zip((inputs, *sizes), sizes)):
      suffix = f'_{i}' if i else ''
      expected[f'{head}/linear{suffix}'] = dict(w=(before, after), b=(after,))
      expected[f'{head}/batch_norm{suffix}'] = dict(scale=(1, after), offset=(1, after))
    # The last layer has neither bias nor norm.
    del expected[f'{head}/batch_norm{suffix}'], expected[f'{head}/linear{suffix}']['b']
    assert {name: arrays for name, arrays in params.items() if name.startswith(head)} == expected


def test_the_norm_of_a_missing_predictor_is_an_error(build):
  with pytest.raises(InputError, match='predictor_output_norm is True without a predictor'):
    build(predictor=(), predictor_output_norm=True)


def test_heads_that_end_in_different_sizes_are_an_error(build):
  with pytest.raises(InputError, match='model.predictor ends in 5 units and model.projector in '
                                       '4; they must agree'):
    build(predictor=(7, 5))


def test_count_parameters_by_prefix(variables):
  params, _ = variables
  encoder, projector = 3 * 5 + 2 * 5, (5 * 6 + 6) + 2 * 6 + 6 * 4
  predictor, classifier = (4 * 7 + 7) + 2 * 7 + 7 * 4, 5 * 3 + 3
  assert model.count_parameters(params, 'projector') == projector
  assert model.count_parameters(params, 'classifier') == classifier
  assert model.count_parameters(params) == encoder + projector + predictor + classifier
  assert model.count_parameters(params, 'nothing') == 0


def test_encoder_only_drops_heads_and_classifier(variables):
  assert model.encoder_only(variables[0]).keys() == {'conv', 'norm'}


def test_images_must_come_in_batches(build, trained):
  with pytest.raises(AssertionError):
    build().encode(*trained, draw_images(5)[0])


def test_without_statistics_of_the_batch_an_image_does_not_see_the_others(build):
  networks, images = build(normalization='group'), draw_images(0)
  params, state = jax.jit(networks.init)(jax.random.key(0), images)
  assert not state and set(params) >= {'norm/norm', 'projector/group_norm/norm'}
  apply = jax.jit(lambda x, is_training: networks.apply(params, state, x, is_training)[0],
                  static_argnums=1)
  together, alone, evaluated = apply(images, True), apply(images[1:2], True), apply(images, False)
  np.testing.assert_allclose(alone.prediction, together.prediction[1:2], atol=1e-5)
  np.testing.assert_array_equal(evaluated.prediction, together.prediction)


def test_convolutions_use_standardized_weights_where_there_are_no_statistics(build):
  networks, images = build(normalization='group'), draw_images(0)
  params, state = jax.jit(networks.init)(jax.random.key(0), images)
  encode = jax.jit(lambda w: networks.encode(params | {'conv': dict(w=w)}, state, images))
  w = params['conv']['w']
  # What standardization takes out changes nothing; the parameter itself is as it was drawn.
  np.testing.assert_allclose(encode(3. * w + 1.), encode(w), atol=1e-4)
  assert np.abs(np.mean(w, axis=(0, 1, 2))).max() > 1e-2
  assert np.abs(encode(-w) - encode(w)).max() > 1e-2


def test_small_views_have_a_predictor_of_their_own_or_share_one(build, variables):
  networks, images = build(small_predictor=(7, 4)), draw_images(0)
  params, state = jax.jit(networks.init)(jax.random.key(0), images)
  assert params['predictor_small/linear']['w'].shape == (4, 7)
  assert not any('predictor' in module for module in model.encoder_only(params))
  large, small = (jax.jit(lambda apply=apply: apply(params, state, images, False)[0])()
                  for apply in (networks.apply, networks.apply_to_small))
  np.testing.assert_array_equal(large.projection, small.projection)
  swapped = params | {module.replace('predictor', 'predictor_small', 1): params[module]
                      for module in params if module.startswith('predictor/')}
  statistics = state | {module.replace('predictor', 'predictor_small', 1): state[module]
                        for module in state if module.startswith('predictor/')}
  assert np.abs(large.prediction - small.prediction).max() > 1e-2
  again, _ = networks.apply_to_small(swapped, statistics, images, False)
  np.testing.assert_allclose(again.prediction, large.prediction, atol=1e-5)
  shared = [apply(*variables, images, False)[0].prediction
            for apply in (build().apply, build().apply_to_small)]
  np.testing.assert_array_equal(*shared)


def test_the_initial_scale_multiplies_weights_and_nothing_else(build):
  one, two = (jax.jit(build(initial_scale=scale).init)(jax.random.key(0), draw_images(0))[0]
              for scale in (1., 2.))
  for module, arrays in one.items():
    for name, array in arrays.items():
      np.testing.assert_allclose(two[module][name], array * (2. if name == 'w' else 1.), 1e-5)
