"""The step on several devices: equal to one device, replicated, lowers for TPU."""

import functools

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
import numpy as np
import optax
import pytest

from byol_jax import model, schedules, train_step
from byol_jax.augment.views import WHOLE, random_views
from byol_jax.distributed import parallel
from byol_jax.input_pipeline.order import part_order
from byol_jax.losses import targets, variants
from byol_jax.objectives import byol as objective
from byol_jax.objectives import closed_form, infonce
from byol_jax.optimizers import adamw, lars, sgd
from byol_jax.optimizers.multipliers import with_multipliers
from experiments.configs import default, imagenet_r50
from experiments.studies.scaling import shapes

BATCH_SIZE, IMAGE_SIZE, CLASSES = 16, 16, 10


@functools.cache
def make_recipe(compute_dtype='float32', num_classes=CLASSES, target='moving_average',
                predictor=(24, 16), accumulation_steps=1, rematerialize=False, small_views=0,
                **networks_options):
  """A tiny network with the paper's policy."""
  config = default.get_config()
  options = dict(config.model.encoder_options.to_dict(), depth='tiny', stem='medium',
                 rematerialize=rematerialize)
  networks = model.build(
      encoder='resnet', encoder_options=options, projector=(32, 16), predictor=predictor,
      num_classes=num_classes, batch_norm_decay=.9, batch_norm_epsilon=1e-5,
      compute_dtype=compute_dtype, image_mean=(.485, .456, .406),
      image_std=(.229, .224, .225), **networks_options)
  dtype = jnp.promote_types(jnp.dtype(compute_dtype), jnp.float32)
  small = [dict(config.view1.to_dict(), image_size=8)] * small_views
  views = functools.partial(
      random_views, form=WHOLE, seed=0,
      policies=[config.view1.to_dict(), config.view2.to_dict(), *small], image_size=IMAGE_SIZE,
      dtype=dtype)
  return train_step.Recipe(
      networks, views, objective.loss, variants.choose(target, 'batch', small_views),
      lars.build(weight_decay=1e-4, eta=1e-2, momentum=.9),
      functools.partial(
          schedules.learning_rate, base_learning_rate=3.2, batch_size=BATCH_SIZE,
          warmup_steps=1, max_steps=40),
      functools.partial(schedules.tau, base_tau=.9, max_steps=40, schedule='cosine'),
      accumulation_steps)


def make_batch(step, labelled=True):
  rng = np.random.default_rng(step)
  batch = dict(
      images=rng.integers(0, 256, (BATCH_SIZE, 20, 20, 3), dtype=np.uint8),
      sample_id=rng.permutation(1000)[:BATCH_SIZE].astype(np.int32),
      epoch=np.full(BATCH_SIZE, step, np.int32))
  if labelled:
    batch['labels'] = rng.integers(0, CLASSES, BATCH_SIZE, dtype=np.int32)
  return batch


@functools.cache
def initial_state(recipe, dtype=jnp.float32):
  """On the host, so that no test donates it away."""
  images = jnp.zeros((2, IMAGE_SIZE, IMAGE_SIZE, 3), dtype)
  state = jax.jit(lambda key: train_step.init_state(key, images, recipe))(jax.random.key(0))
  return parallel.fetch(parallel.replicate(state, jax.devices()[:1]))


@functools.cache
def mapped_step(recipe, devices):
  return parallel.pmap_step(functools.partial(train_step.train_step, recipe=recipe), devices)


def run(recipe, state, steps, device_count, labelled=True):
  devices = tuple(jax.devices()[:device_count])
  state = parallel.replicate(state, devices)
  for step in range(steps):
    state, scalars = mapped_step(recipe, devices)(
        state, parallel.shard_batch(make_batch(step, labelled), devices))
  return state, scalars


def assert_close(actual, expected, **tolerance):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected)


@pytest.mark.parametrize('count', [4, pytest.param(2, marks=pytest.mark.slow)])
def test_float64_is_equal_on_several_devices_after_20_steps_at_full_learning_rate(count):
  with jax.enable_x64(True):
    recipe = make_recipe('float64')
    start = initial_state(recipe, jnp.float64)
    assert start.online_params['classifier']['w'].dtype == np.float64
    single = parallel.fetch(run(recipe, start, 20, 1)[0])
    several = run(recipe, start, 20, count)
  assert single.step == 20
  moved = single.online_params['tiny_res_net/~/initial_conv']['w'] - \
      start.online_params['tiny_res_net/~/initial_conv']['w']
  assert np.abs(moved).max() > 1e-3
  assert_close(parallel.fetch(several[0]), single, rtol=0, atol=1e-9)
  assert_copies_are_equal(several, count)


OTHER_OPTIMIZERS = dict(
    sgd=sgd.build(weight_decay=1e-4, momentum=.9),
    adamw=adamw.build(weight_decay=.1, beta1=.9, beta2=.999, epsilon=1e-8),
    clipped_lars=lars.build(weight_decay=1e-4, eta=1e-2, momentum=.9, clip=True))


@pytest.mark.slow
@pytest.mark.parametrize('name', OTHER_OPTIMIZERS)
def test_float64_is_equal_on_several_devices_with_other_optimizers(name):
  with jax.enable_x64(True):
    recipe = make_recipe('float64')._replace(
        optimizer=OTHER_OPTIMIZERS[name], learning_rate=functools.partial(
            schedules.learning_rate, base_learning_rate=.05, batch_size=BATCH_SIZE, warmup_steps=1,
            max_steps=40))
    start = initial_state(recipe, jnp.float64)
    single, *several = [parallel.fetch(run(recipe, start, 20, count)[0]) for count in (1, 2, 4)]
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), single.online_params, start.online_params)
  assert min(values['w'] for values in moved.values() if 'w' in values) > 1e-5
  for state in several:
    assert_close(state, single, rtol=0, atol=1e-9)


def assert_copies_are_equal(outputs, count):
  """What every device holds of a step's outputs is the same, to the last bit."""
  leaves = jax.tree.leaves(outputs)
  assert len(leaves) > 100
  for leaf in leaves:
    copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
    assert len(copies) == count
    for copy in copies[1:]:
      np.testing.assert_array_equal(copy, copies[0])


@pytest.mark.slow
def test_float32_agrees_to_golden_tolerance_after_3_steps():
  recipe = make_recipe()
  single, quadruple = (parallel.fetch(run(recipe, initial_state(recipe), 3, count)[0])
                       for count in (1, 4))
  assert_close(quadruple, single, rtol=2e-4, atol=2e-5)


def first_gradients(target, **options):
  """The gradients of the first step, and the state they are of."""
  recipe = make_recipe(target=target, **options)
  device = tuple(jax.devices()[:1])
  gradients = parallel.pmap_step(
      lambda state, batch: train_step.compute_gradients(state, batch, recipe)[0], device)
  state = initial_state(recipe)
  return parallel.fetch(gradients(parallel.replicate(state, device),
                                  parallel.shard_batch(make_batch(0), device))), state


@pytest.mark.slow
def test_accumulated_gradients_are_the_mean_of_those_of_the_parts():
  parts, device = 2, tuple(jax.devices()[:1])

  def find(recipe):
    step = parallel.pmap_step(
        lambda state, batch: train_step.compute_gradients(state, batch, recipe), device)
    return lambda state, batch: parallel.fetch(step(
        parallel.replicate(state, device), parallel.shard_batch(batch, device)))

  state, batch = initial_state(make_recipe()), make_batch(0)
  actual = find(make_recipe(accumulation_steps=parts))(state, batch)
  one, found = find(make_recipe()), []
  for rows in np.split(np.arange(BATCH_SIZE), parts):
    found.append(one(state, {name: array[rows] for name, array in batch.items()}))
    # The averages of BatchNorm go from part to part, the parameters stay.
    state = state._replace(online_state=found[-1][1], target_state=found[-1][2])
  mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *[(f[0], f[3]) for f in found])
  assert_close((actual[0], actual[3]), mean, rtol=1e-4, atol=1e-5)
  assert_close(actual[1:3], found[-1][1:3], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_accumulation_moves_tau_and_step_once_and_needs_no_number_of_devices():
  with jax.enable_x64(True):
    recipe = make_recipe('float64', accumulation_steps=2)
    start, finals = initial_state(recipe, jnp.float64), []
    for count in (1, 4):
      devices = tuple(jax.devices()[:count])
      order = part_order(BATCH_SIZE, shards=2, parts=2, devices=count)
      state = parallel.replicate(start, devices)
      for step in range(2):
        batch = {name: array[order] for name, array in make_batch(step).items()}
        state, scalars = mapped_step(recipe, devices)(state, parallel.shard_batch(batch, devices))
      finals.append(parallel.fetch(state))
  assert finals[0].step == 2
  assert float(scalars['tau']) == pytest.approx(schedules.tau(1, base_tau=.9, max_steps=40,
                                                              schedule='cosine'))
  assert_close(finals[1], finals[0], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_rematerialization_changes_no_gradient():
  plain, less = (first_gradients('moving_average', rematerialize=value)[0]
                 for value in (False, True))
  assert_close(less, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('rematerialize', [False, True])
def test_only_rematerialization_computes_again(rematerialize):
  recipe, devices = make_recipe(rematerialize=rematerialize), tuple(jax.devices()[:1])
  step = parallel.jit_step(functools.partial(train_step.train_step, recipe=recipe), devices)
  inputs = parallel.abstract_inputs(initial_state(recipe), make_batch(0), devices)
  assert ('remat' in str(jax.make_jaxpr(step)(*inputs))) == rematerialize


@pytest.mark.slow
def test_the_gradient_stops_at_the_target():
  """With theta = xi the stopped gradient is that of the moving average."""
  recipe = make_recipe()
  same = initial_state(recipe)
  same = same._replace(target_params=same.online_params)
  device = tuple(jax.devices()[:1])
  gradients = parallel.pmap_step(
      lambda state, batch: train_step.compute_gradients(state, batch, recipe)[0], device)
  moving = parallel.fetch(gradients(parallel.replicate(same, device),
                                    parallel.shard_batch(make_batch(0), device)))
  stopped, _ = first_gradients('stop_gradient')
  assert_close(stopped, moving, rtol=1e-4, atol=1e-6)
  flowing, _ = first_gradients('none')
  difference = flowing['projector/linear']['w'] - stopped['projector/linear']['w']
  assert np.abs(difference).max() > 1e-3


@pytest.mark.slow
def test_without_predictor_and_target_all_gradients_are_of_one_network():
  """Then the loss is symmetric: nothing is stopped, nothing predicted."""
  gradients, state = first_gradients('none', predictor=())
  assert not any(module.startswith('predictor') for module in state.online_params)
  stopped, _ = first_gradients('stop_gradient', predictor=())
  for module in ('projector/linear', 'tiny_res_net/~/initial_conv'):
    # Either side of a squared distance has half of the gradient.
    np.testing.assert_allclose(gradients[module]['w'], 2 * stopped[module]['w'], 1e-3, 1e-5)


def checked_gradients(recipe, mesh):
  """`compute_gradients` under a map that proves its outputs replicated.

  The parameters enter as if they could differ between devices: only then is a
  gradient that was not averaged seen as one.
  """
  def gradients(state, batch):
    batch = jax.tree.map(lambda x: x[0], batch)
    varying = jax.tree.map(lambda x: jax.lax.pcast(x, parallel.AXIS, to='varying'),
                           state.online_params)
    return train_step.compute_gradients(state._replace(online_params=varying), batch, recipe)

  return jax.jit(jax.shard_map(
      gradients, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec(parallel.AXIS)),
      out_specs=PartitionSpec(), check_vma=True))


def abstract_inputs(recipe, devices=4):
  state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), initial_state(recipe))
  batch = {k: jax.ShapeDtypeStruct((devices, len(v) // devices, *v.shape[1:]), v.dtype)
           for k, v in make_batch(0).items()}
  return state, batch


def test_gradients_statistics_and_scalars_are_proved_replicated():
  recipe = make_recipe()
  mesh = Mesh(np.array(jax.devices()), (parallel.AXIS,))
  checked_gradients(recipe, mesh).trace(*abstract_inputs(recipe))


def test_the_proof_fails_for_a_forgotten_mean(monkeypatch):
  monkeypatch.setattr(parallel, 'mean_over_devices', lambda tree: tree)
  recipe = make_recipe()
  mesh = Mesh(np.array(jax.devices()), (parallel.AXIS,))
  with pytest.raises(ValueError, match='replicat'):
    checked_gradients(recipe, mesh).trace(*abstract_inputs(recipe))


def lowered_for_tpu(recipe, state, batch):
  """StableHLO of the step on all devices."""
  step = parallel.jit_step(functools.partial(train_step.train_step, recipe=recipe), jax.devices())
  inputs = parallel.abstract_inputs(state, batch, jax.devices())
  return step.trace(*inputs).lower(lowering_platforms=('tpu',)).as_text()


@pytest.mark.parametrize('compute_dtype', ['float32', 'bfloat16'])
def test_the_step_lowers_for_tpu(compute_dtype):
  recipe = make_recipe(compute_dtype)
  text = lowered_for_tpu(recipe, initial_state(recipe), make_batch(0))
  assert 'stablehlo.convolution' in text
  assert ('bf16' in text) == (compute_dtype == 'bfloat16')


@pytest.mark.slow
@pytest.mark.parametrize('compute_dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('depth, width, convolutions', [(50, 1.0, 53), (200, 2.0, 203)])
def test_the_papers_networks_lower_for_tpu(depth, width, convolutions, compute_dtype):
  config = imagenet_r50.get_config(f'depth={depth},width={width}')
  config.model.compute_dtype = compute_dtype
  recipe = shapes.recipe(config, num_examples=1_281_167, num_classes=1000)
  text = lowered_for_tpu(recipe, shapes.state(recipe, 224), shapes.batch(32, 224))
  views, online, target = 2, 3, 1
  # Each convolution once forward in both networks; backward twice, the first one's
  # images excepted. The blur has convolutions of its own, which are depthwise.
  own = [line for line in text.splitlines()
         if 'stablehlo.convolution' in line and 'feature_group_count = 1 ' in line]
  assert len(own) == views * ((online + target) * convolutions - 1)
  assert ('bf16' in text) == (compute_dtype == 'bfloat16')


@pytest.mark.slow
def test_jit_step_gives_the_bits_of_pmap_step():
  recipe, devices = make_recipe(), tuple(jax.devices())
  jitted = parallel.jit_step(functools.partial(train_step.train_step, recipe=recipe), devices)
  state = parallel.replicate(initial_state(recipe), devices)
  for step in range(2):
    state, scalars = jitted(state, parallel.shard_batch(make_batch(step), devices))
  expected = run(recipe, initial_state(recipe), 2, 4)
  assert_close(parallel.fetch((state, scalars)), parallel.fetch(expected), rtol=0, atol=0)


@pytest.mark.slow
def test_bfloat16_keeps_the_state_in_float32_and_stays_near_float32():
  state, scalars = run(make_recipe('bfloat16'), initial_state(make_recipe()), 3, 1)
  for leaf in jax.tree.leaves((state._replace(step=None), scalars)):
    assert leaf.dtype in (jnp.float32, jnp.int32)  # int32: the counters of BatchNorm
  _, reference = run(make_recipe(), initial_state(make_recipe()), 3, 1)
  np.testing.assert_allclose(scalars['byol_loss'], reference['byol_loss'], rtol=.05)


def test_the_step_compiles_once_and_donates_its_state():
  recipe, devices = make_recipe(), tuple(jax.devices())
  traces = []

  def counted(batch):
    traces.append(None)
    return recipe.views(batch)

  step_fn = mapped_step(recipe._replace(views=counted), devices)
  state = first = parallel.replicate(initial_state(recipe), devices)
  for step in range(3):
    state, _ = step_fn(state, parallel.shard_batch(make_batch(step), devices))
  assert len(traces) == 1
  assert first.online_params['classifier']['w'].is_deleted()


@pytest.mark.slow
def test_unlabelled_images_train_without_a_classifier():
  recipe = make_recipe(num_classes=0)
  state, scalars = run(recipe, initial_state(recipe), 1, 1, labelled=False)
  assert 'classifier' not in state.online_params
  assert set(scalars) == {'loss', 'byol_loss', 'projections', 'learning_rate', 'tau'}
  np.testing.assert_array_equal(scalars['loss'], scalars['byol_loss'])


def test_labels_do_not_move_the_encoder():
  recipe, devices = make_recipe(), tuple(jax.devices()[:1])
  results = []
  for shift in (0, 3):
    batch = make_batch(0)
    batch['labels'] = (batch['labels'] + shift) % CLASSES
    state, _ = mapped_step(recipe, devices)(
        parallel.replicate(initial_state(recipe), devices), parallel.shard_batch(batch, devices))
    results.append(parallel.fetch(optax.tree.get(state.opt_state, 'trace')))
  assert np.abs(results[0]['classifier']['w'] - results[1]['classifier']['w']).max() > 1e-4
  for tree in results:
    tree.pop('classifier')
  assert_close(results[0], results[1], rtol=0, atol=0)


@pytest.mark.parametrize('labelled', [True, False])
def test_the_variant_of_the_papers_choices_is_the_papers_loss(labelled):
  recipe = make_recipe(num_classes=CLASSES if labelled else 0)
  state, batch = initial_state(recipe), make_batch(0, labelled)
  variant_loss = functools.partial(variants.loss_fn, target_of=targets.moving_average)
  devices = tuple(jax.devices()[:1])
  step = lambda loss: mapped_step(recipe._replace(loss=loss), devices)(
      parallel.replicate(state, devices), parallel.shard_batch(batch, devices))
  chex.assert_trees_all_equal(step(train_step.loss_fn), step(variant_loss))


@functools.cache
def variant(name, compute_dtype='float64'):
  """Recipes that have every option between them; the first has small views and their predictor."""
  if name == 'contrast':
    recipe = make_recipe(compute_dtype, small_views=1, small_predictor=(20, 16),
                         normalization='group', initial_scale=2.)
    return recipe._replace(
        objective=functools.partial(infonce.loss, beta=.5, temperature=.3, normalization='l2'),
        optimizer=with_multipliers(lars.build(weight_decay=1e-4, eta=1e-2, momentum=.9),
                                   predictor=10., biases_and_norms=.5))
  recipe = make_recipe(compute_dtype, predictor=())
  return recipe._replace(objective=closed_form.loss, loss=variants.choose(
      'moving_average', 'moving_average', 0))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['contrast', 'regression'])
def test_variants_are_equal_on_1_and_4_devices(name):
  with jax.enable_x64(True):
    recipe = variant(name)
    start = initial_state(recipe, jnp.float64)
    finals = [parallel.fetch(run(recipe, start, 3, count)[0]) for count in (1, 4)]
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), finals[0].online_params,
                       start.online_params)
  # Every weight of every head has a gradient.
  assert min(values['w'] for module, values in moved.items() if 'w' in values) > 1e-7
  assert_close(finals[1], finals[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize('name', ['contrast', 'regression'])
def test_gradients_of_the_variants_are_proved_replicated(name):
  recipe = variant(name, 'float32')
  mesh = Mesh(np.array(jax.devices()), (parallel.AXIS,))
  checked_gradients(recipe, mesh).trace(*abstract_inputs(recipe))


@pytest.mark.slow
def test_a_small_view_alone_is_half_of_the_loss():
  """The mean of two losses: that of the large views, and that of a small one in both directions."""
  recipe = make_recipe(num_classes=0, small_views=1)
  device = tuple(jax.devices()[:1])

  def losses(state, batch):
    views = recipe.views(batch)
    large = [], []
    online_state, target_state = state.online_state, state.target_state
    for view in views[:2]:
      outputs, online_state = recipe.model.apply(state.online_params, online_state, view, True)
      large[0].append(outputs)
      outputs, target_state = recipe.model.apply(state.target_params, target_state, view, True)
      large[1].append(outputs)
    outputs, _ = recipe.model.apply(state.online_params, online_state, views[2], True)
    expected = (jnp.mean(objective.loss(*large)) + jnp.mean(
        objective.loss([outputs, outputs], large[1]))) / 2
    return expected, recipe.loss(state.online_params, state, views, None, recipe)[0]

  expected, actual = parallel.pmap_evaluation(losses, device)(
      initial_state(recipe), parallel.shard_batch(make_batch(0, labelled=False), device))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize('small_views', [0, 1])
def test_an_objective_gives_the_loss_of_every_image(small_views):
  recipe = make_recipe(small_views=small_views)._replace(
      objective=lambda online, target: jnp.sum(objective.loss(online, target)))
  state = initial_state(recipe)
  step = jax.vmap(lambda batch: train_step.compute_gradients(state, batch, recipe),
                  axis_name=parallel.AXIS)
  with pytest.raises(AssertionError, match='shape'):
    jax.eval_shape(step, jax.tree.map(lambda x: x[None], make_batch(0)))


@pytest.mark.parametrize('tau, expected', [(1., 'target'), (0., 'online')])
def test_ema_endpoints(tau, expected):
  trees = dict(target={'a': {'w': jnp.array([1., 2.])}}, online={'a': {'w': jnp.array([3., -1.])}})
  moved = train_step.ema_update(trees['target'], trees['online'], tau)
  np.testing.assert_array_equal(moved['a']['w'], trees[expected]['a']['w'])


def test_ema_is_optax_incremental_update_and_has_an_exact_fixed_point():
  rng = np.random.default_rng(0)
  target, online = ({'a': {'w': jnp.asarray(rng.normal(size=1000), jnp.float32)}}
                    for _ in range(2))
  np.testing.assert_allclose(
      train_step.ema_update(target, online, .996)['a']['w'],
      optax.incremental_update(online, target, 1 - .996)['a']['w'], atol=1e-6)
  np.testing.assert_array_equal(
      train_step.ema_update(target, target, .996)['a']['w'], target['a']['w'])
