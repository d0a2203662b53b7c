"""Agreement with values computed by the reference implementation.

The values lie in tests/data/goldens, or in the folder that the environment
variable BYOL_JAX_GOLDENS names: the same files and keys, other numbers.
"""

import functools
import json
import os
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import model, schedules, train_step
from byol_jax.augment import ops
from byol_jax.augment.views import random_view
from byol_jax.distributed import parallel
from byol_jax.objectives import byol as objective
from byol_jax.optimizers import lars
from experiments.configs import default
from tests.planes import on_planes

GOLDENS = pathlib.Path(os.environ.get('BYOL_JAX_GOLDENS')
                       or pathlib.Path(__file__).parent / 'data' / 'goldens')
PRESETS = dict(epochs40=(40, .45, .97), epochs100=(100, .45, .99), epochs300=(300, .3, .99),
               epochs1000=(1000, .2, .996))
IMAGENET_MEAN, IMAGENET_STD = (.485, .456, .406), (.229, .224, .225)
IMAGENET_TRAIN = 1_281_167


@functools.cache
def golden(name):
  with np.load(GOLDENS / f'{name}.npz') as data:
    return dict(data)


def haiku_tree(flat, prefix):
  """{prefix/module/leaf: array} -> {module: {leaf: array}}."""
  tree = {}
  for key, array in flat.items():
    if key.startswith(prefix + '/'):
      module, leaf = key.removeprefix(prefix + '/').rsplit('/', 1)
      tree.setdefault(module, {})[leaf] = array
  return tree


def assert_trees_close(actual, expected, rtol, atol):
  assert set(actual) == set(expected)
  for module, arrays in expected.items():
    assert set(actual[module]) == set(arrays)
    for leaf, array in arrays.items():
      np.testing.assert_allclose(actual[module][leaf], array, rtol, atol,
                                 err_msg=f'{module}/{leaf}')


@pytest.mark.parametrize('preset', PRESETS)
def test_schedules(preset):
  values = {key: golden('schedules')[f'{preset}/{key}']
            for key in ('max_steps', 'warmup_steps', 'steps', 'learning_rate', 'tau')}
  epochs, base_learning_rate, base_tau = PRESETS[preset]
  max_steps = schedules.num_steps(epochs, IMAGENET_TRAIN, 4096)
  warmup_steps = schedules.num_steps(10, IMAGENET_TRAIN, 4096)
  assert (max_steps, warmup_steps) == (values['max_steps'], values['warmup_steps'])
  learning_rate = schedules.learning_rate(
      values['steps'], base_learning_rate=base_learning_rate, batch_size=4096,
      warmup_steps=warmup_steps, max_steps=max_steps)
  tau = schedules.tau(values['steps'], base_tau=base_tau, max_steps=max_steps,
                      schedule='cosine')
  np.testing.assert_allclose(learning_rate, values['learning_rate'], 1e-5, 1e-6)
  np.testing.assert_allclose(tau, values['tau'], 1e-5, 1e-6)


def test_lars_with_a_changing_learning_rate():
  values = golden('lars')
  optimizer = lars.build(**json.loads(str(values['config'])))
  params = haiku_tree(values, 'params0')
  opt_state = optimizer.init(params)
  for i, learning_rate in enumerate(values['learning_rates']):
    momentum, opt_state = optimizer.update(haiku_tree(values, f'grads{i}'), opt_state, params)
    params = train_step.apply_momentum(params, momentum, learning_rate)
    assert_trees_close(params, haiku_tree(values, f'params{i + 1}'), 1e-5, 1e-6)


def test_loss_of_one_direction():
  values = golden('loss')
  np.testing.assert_allclose(
      objective.regression_loss(values['prediction'], values['target_projection']),
      values['loss_per_example'], rtol=1e-5, atol=1e-12)


OPERATIONS = dict(
    brightness=on_planes(ops.brightness),
    contrast=on_planes(ops.contrast),
    saturation=on_planes(ops.saturation),
    hue=on_planes(ops.hue),
    solarize=on_planes(ops.solarize))


def operation(key):
  """The function that a key of augment_ops.npz stands for."""
  name, *parameters = key.split('/')
  if name == 'blur':
    return lambda image: on_planes(ops.gaussian_blur)(
        image, float(parameters[0].removeprefix('sigma')),
        float(parameters[1].removeprefix('kernel')))
  if parameters:
    return lambda image: jnp.clip(OPERATIONS[name](image, float(parameters[0])), 0, 1)
  return dict(grayscale=on_planes(ops.grayscale), normalize=lambda images: model.normalize(
      images, IMAGENET_MEAN, IMAGENET_STD))[name]


def test_augmentation_operations():
  values = golden('augment_ops')
  keys = [key for key in values if key != 'images']
  assert {key.split('/')[0] for key in keys} == set(OPERATIONS) | {
      'blur', 'grayscale', 'normalize'}
  for key in keys:
    np.testing.assert_allclose(jax.vmap(operation(key))(values['images']), values[key],
                               rtol=0, atol=2e-5, err_msg=key)


@pytest.mark.parametrize('view', ['view1', 'view2'])
def test_augmentation_distribution(view):
  values = golden('augment_distribution')
  draws = int(values['draws'])
  policy = default.get_config()[view].to_dict()
  keys = jax.random.split(jax.random.key(0), draws)
  images = np.asarray(jax.jit(jax.vmap(
      lambda key: random_view(key, jnp.asarray(values['image']), policy)))(keys))
  gray = np.ptp(images, axis=-1).max(axis=(1, 2)) < 1e-3
  means = images.mean(axis=(1, 2))
  dx = np.abs(np.diff(images, axis=2)).mean(axis=(1, 2, 3))

  def assert_same_mean(actual, expected, std):
    assert np.all(np.abs(actual - expected) <= 5 * np.sqrt(2) * std / np.sqrt(draws))

  assert_same_mean(means.mean(axis=0), values[f'{view}/channel_mean_of_image_means'],
                   values[f'{view}/channel_std_of_image_means'])
  assert_same_mean(dx.mean(), values[f'{view}/mean_abs_dx'], values[f'{view}/std_abs_dx'])
  share = values[f'{view}/gray_fraction']
  assert_same_mean(gray.mean(), share, np.sqrt(share * (1 - share) / 2))
  np.testing.assert_allclose(means.std(axis=0),
                             values[f'{view}/channel_std_of_image_means'], rtol=.1)
  np.testing.assert_allclose(images.std(), values[f'{view}/pixel_std'], rtol=.05)


def golden_recipe(config, batch_size, dtype):
  """The recipe of the reference's configuration, with views given instead of drawn."""
  network, optimizer = config['network_config'], config['optimizer_config']
  schedule = config['lr_schedule_config']
  networks = model.build(
      encoder='resnet',
      encoder_options=dict(depth='tiny', width=network['encoder_config']['width_multiplier'],
                           version=1, stem='imagenet', padding='SAME', first_projection=True,
                           zero_init_last_scale=False),
      projector=(network['projector_hidden_size'], network['projector_output_size']),
      predictor=(network['predictor_hidden_size'], network['projector_output_size']),
      num_classes=config['num_classes'],
      batch_norm_decay=network['bn_config']['decay_rate'],
      batch_norm_epsilon=network['bn_config']['eps'],
      compute_dtype=dtype, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)
  return train_step.Recipe(
      networks, lambda batch: (batch['view1'], batch['view2']), objective.loss,
      train_step.loss_fn, lars.build(**optimizer),
      lambda step: schedules.learning_rate(
          step, base_learning_rate=schedule['base_learning_rate'], batch_size=batch_size,
          warmup_steps=schedule['warmup_steps'], max_steps=config['max_steps']),
      lambda step: schedules.tau(step, base_tau=config['base_target_ema'],
                                 max_steps=config['max_steps'], schedule='cosine'))


def golden_state(values, recipe, dtype):
  trees = {name: jax.tree.map(
      lambda x: x.astype(dtype) if x.dtype == np.float32 else x,
      haiku_tree(values, f'step0/{name}')) for name in STATES}
  return train_step.TrainState(step=jnp.int32(0), opt_state=recipe.optimizer.init(
      trees['online_params']), **trees)


STATES = ('online_params', 'target_params', 'online_state', 'target_state')
SCALARS = dict(loss='loss', byol_loss='repr_loss', classifier_loss='classif_loss',
               top1='top1_accuracy', top5='top5_accuracy', tau='tau',
               learning_rate='learning_rate')


def three_updates(count, dtype):
  """({name of a tree: its arrays}, scalars) after each update of the golden batches."""
  values = golden(f'update_{count}device')
  config = json.loads(str(values['config']))
  devices = jax.devices()[:count]
  recipe = golden_recipe(config, config['batch_size'], dtype)
  step = parallel.pmap_step(functools.partial(train_step.train_step, recipe=recipe), devices)
  state = parallel.replicate(golden_state(values, recipe, dtype), devices)
  for i in range(3):
    batch = {name: values[f'batch{i}/{name}'].reshape(-1, *values[f'batch{i}/{name}'].shape[2:])
             for name in ('view1', 'view2', 'labels')}
    batch |= {name: batch[name].astype(dtype) for name in ('view1', 'view2')}
    state, scalars = step(state, parallel.shard_batch(batch, devices))
    trees = {name: getattr(state, name) for name in STATES}
    trees['momentum'] = optax.tree.get(state.opt_state, 'trace')
    yield jax.tree.map(np.asarray, trees), scalars


@pytest.mark.parametrize('count', [1, 2])
def test_three_whole_updates_in_float64(count):
  # In float32 a ReLU whose input is almost 0 can open on one processor and not on another.
  values = golden(f'update_{count}device_float64')
  with jax.enable_x64(True):
    for i, (trees, scalars) in enumerate(three_updates(count, 'float64'), 1):
      for name, tree in trees.items():
        expected = haiku_tree(values, f'step{i}/{name}')
        assert set(tree) == set(expected)
        for module, arrays in expected.items():
          assert set(tree[module]) == set(arrays)
          for leaf, array in arrays.items():
            assert tree[module][leaf].dtype == array.dtype
            # Biases before a BatchNorm have a gradient of 0: what they hold is rounding.
            largest = max(np.abs(array).max(), 1e-3)
            np.testing.assert_allclose(tree[module][leaf], array, rtol=0, atol=1e-10 * largest,
                                       err_msg=f'update {i}, {name}, {module}/{leaf}')
      for ours, theirs in SCALARS.items():
        # The reference has its schedules in float32.
        tolerance = 1e-6 if ours in ('tau', 'learning_rate') else 1e-10
        np.testing.assert_allclose(scalars[ours], values[f'logs{i - 1}/{theirs}'], tolerance)


@pytest.mark.parametrize('count', [1, 2])
def test_three_whole_updates_in_float32(count):
  values = golden(f'update_{count}device')
  norm = lambda tree: np.linalg.norm(np.concatenate(list(map(np.ravel, jax.tree.leaves(tree)))))
  for i, (trees, scalars) in enumerate(three_updates(count, 'float32'), 1):
    for name, tree in trees.items():
      expected = haiku_tree(values, f'step{i}/{name}')
      chex.assert_trees_all_equal_shapes_and_dtypes(tree, expected)
      # Of whole trees: one open ReLU more moves a few numbers only.
      distance = norm(jax.tree.map(np.subtract, tree, expected)) / max(norm(expected), 1e-3)
      assert distance < 1e-3, (i, name, distance)
    for ours, theirs in SCALARS.items():
      np.testing.assert_allclose(scalars[ours], values[f'logs{i - 1}/{theirs}'], 2e-4, 2e-5)
