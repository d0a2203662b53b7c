"""Small views: what they add to the loss, and their crops on the host."""

import types

import jax.numpy as jnp
import numpy as np
import tensorflow as tf

from byol_jax.input_pipeline import preprocess
from byol_jax.losses import multi_crop
from byol_jax.model import Outputs
from byol_jax.objectives import byol
from byol_jax.optimizers import lars
from byol_jax.optimizers.multipliers import with_multipliers


def test_the_loss_is_the_mean_over_large_and_small_views():
  """Each small view regresses both projections of the target."""
  random = np.random.default_rng(0)
  views, projections = random.normal(size=(2, 6, 5)), random.normal(size=(2, 6, 5))
  apply = lambda params, state, view, is_training: (
      Outputs(None, None, params * view, None), state + is_training)
  recipe = types.SimpleNamespace(
      model=types.SimpleNamespace(apply_to_small=apply), objective=byol.loss)
  target = [Outputs(None, jnp.asarray(z), None, None) for z in projections]
  loss = multi_crop.with_small_views(jnp.float32(1.5), views, target, 2., 7, recipe)
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  losses = [np.mean([np.sum((unit(view) - unit(z)) ** 2, axis=1).mean() * 2
                     for z in projections]) for view in views]
  np.testing.assert_allclose(loss, (1.5 + sum(losses)) / 3, rtol=1e-5)


def test_the_second_predictor_has_the_learning_rate_of_the_first():
  optimizer = with_multipliers(lars.build(weight_decay=0., eta=1., momentum=0.),
                               predictor=10.)
  params = {name: {'b': np.ones(2, np.float32)} for name in ('predictor_small/linear',
                                                             'predictor/linear', 'projector')}
  updates, _ = optimizer.update(params, optimizer.init(params), params, learning_rate=.5)
  assert {name: float(values['b'][0]) for name, values in updates.items()} == {
      'predictor_small/linear': 10., 'predictor/linear': 10., 'projector': 1.}


def test_crops_of_the_host_have_the_size_of_their_policy():
  policy = dict(crop_area=(.1, .5), crop_aspect=(1., 1.))
  image = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))
  found = preprocess.crops(image, tf.constant([1, 2]), size=12, resize='bicubic',
                           policies=[policy, policy, dict(policy, image_size=5)])
  assert {name: tuple(crop.shape) for name, crop in found.items()} == {
      'crop1': (12, 12, 3), 'crop2': (12, 12, 3), 'crop3': (5, 5, 3)}
