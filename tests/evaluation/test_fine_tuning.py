import functools

import haiku as hk
import jax
import numpy as np
import pytest
from scipy.special import expit, softmax

from byol_jax import model
from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuning, supervised
from tests.evaluation import fine_tuning_parts as parts


def make_runner(split, **changes):
  return fine_tuning.runner(parts.make_images(split), **dict(
      num_classes=parts.CLASSES, batch_norm_decay=.9, batch_size=parts.BATCH,
      momentum=parts.MOMENTUM, view=parts.WHOLE, seed=parts.SEED) | changes)


@pytest.mark.parametrize('steps', [1, 7])
def test_steps_are_those_of_nesterovs_method_by_hand(steps, devices, monkeypatch):
  """Weight decay moves the weights, but neither biases nor norms; a rate is per 256 images."""
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  split = parts.make_split(0, 24)
  found = make_runner(split)(learning_rate=16., weight_decay=.1, max_steps=steps)
  parts.assert_trained(found, parts.reference(split, rate=.5, decay=.1, steps=steps))


def test_losses_are_those_of_numpy_and_leave_out_what_does_not_count():
  random = np.random.default_rng(0)
  logits = random.normal(0, 4, (50, 6))
  several, one = random.integers(-1, 2, (50, 6)), random.integers(0, 6, 50)
  assert (several < 0).sum() > 50
  share = expit(logits)
  each = -np.where(several == 1, np.log(share), np.log1p(-share))
  np.testing.assert_allclose(
      fine_tuning.losses(np.float32(logits), several),
      [row[labels >= 0].sum() for row, labels in zip(each, several)], rtol=1e-5)
  np.testing.assert_allclose(
      fine_tuning.losses(np.float32(logits), one),
      -np.log(softmax(logits, axis=1))[np.arange(50), one], rtol=1e-5)


def test_images_of_several_labels_are_trained_on_by_the_sigmoid():
  split = parts.with_several_labels(parts.make_split(0, 24))
  found = make_runner(split)(learning_rate=16., weight_decay=.1, max_steps=7)
  parts.assert_trained(found, parts.reference(split, rate=.5, decay=.1, steps=7))


def test_every_run_starts_anew_and_with_its_own_schedule():
  split = parts.make_split(0, 24)
  run = make_runner(split, batch_norm_decay=.5)
  for rate, decay, steps in ((16., 0., 6), (4., .2, 3), (16., 0., 6)):
    parts.assert_trained(
        run(learning_rate=rate, weight_decay=decay, max_steps=steps),
        parts.reference(split, rate=rate / 32, decay=decay, steps=steps, bn_decay=.5))


def test_the_heads_are_left_out_and_the_start_is_kept():
  images = parts.make_images(parts.make_split(0, 24))
  before = jax.tree.map(np.array, images.encoder.variables)
  weights = fine_tuning.with_new_classifier(images, 3)
  assert set(weights.params) == {'encoder', 'encoder_norm', 'classifier'}
  assert not weights.params['classifier']['w'].any()
  assert weights.params['classifier']['w'].shape == (parts.DIMENSION, 3)
  make_runner(parts.make_split(0, 24))(learning_rate=9., weight_decay=0., max_steps=2)
  jax.tree.map(np.testing.assert_array_equal, images.encoder.variables, before)


def test_a_training_that_diverges_gives_no_weights():
  assert make_runner(parts.make_split(0, 24))(
      learning_rate=1e30, weight_decay=1e3, max_steps=5) is None


def test_the_speed_is_told_once():
  told = []
  make_runner(parts.make_split(0, 24))(learning_rate=1., weight_decay=0., max_steps=20,
                                       timed=told.append)
  assert len(told) == 1 and 0 < told[0] < 10


def averages(state, decay, batch):
  """BatchNorm's statistics after one training pass over [B, 3]."""
  apply = hk.transform_with_state(
      lambda x: hk.BatchNorm(True, True, decay, name='norm')(x, is_training=True))
  if state is None:
    state = apply.init(None, batch)[1]
  return apply.apply(apply.init(None, batch)[0], state, None, batch)[1]


@pytest.mark.parametrize('decay', [.5, .99])
def test_batch_norm_statistics_go_on_from_what_they_are(decay):
  """average <- d average + (1 - d) batch, with another decay and few updates before."""
  first, second = np.random.default_rng(0).normal([[[1]], [[5]]], 1, (2, 8, 3)).astype(np.float32)
  before = averages(None, .9, first)
  found = averages(fine_tuning.continued(before), decay, second)
  for module, moment in (('norm/~/mean_ema', np.mean), ('norm/~/var_ema', np.var)):
    np.testing.assert_allclose(before[module]['average'][0], moment(first, 0), rtol=1e-5)
    np.testing.assert_allclose(
        found[module]['average'][0], decay * moment(first, 0) + (1 - decay) * moment(second, 0),
        rtol=1e-5)
  # What it is for: as it is, the average would be that of neither decay.
  unlike = averages(before, decay, second)['norm/~/mean_ema']['average']
  assert np.abs(unlike - found['norm/~/mean_ema']['average']).max() > .1


def test_the_supervised_encoder_is_trained_from_its_initialisation():
  """With weight decay, a rate per 256 images and no other start of its statistics."""
  def init(key, images):
    params, state = parts.variables()
    classifier = dict(w=np.zeros((parts.DIMENSION, 3), np.float32), b=np.zeros(3, np.float32))
    return dict(params, classifier=classifier), state

  networks = model.Model(init=init, apply=None, apply_to_small=None, encode=None,
                         encode_in_training=parts.training(.9))
  split = parts.make_split(0, 24)
  batches = functools.partial(parts.make_images(split).batches, [parts.WHOLE])
  weights = supervised.train(
      networks, lambda batch: batch['images'] / 255.,
      batches, 24, image_size=parts.SIZE, seed=parts.SEED, epochs=2., batch_size=parts.BATCH,
      base_learning_rate=16., momentum=parts.MOMENTUM, weight_decay=.1, devices=jax.devices())
  parts.assert_trained(weights, parts.reference(split, rate=.5, decay=.1, steps=6))
  with pytest.raises(InputError, match='diverged with supervised.base_learning_rate 1e[+]30'):
    supervised.train(
        networks, lambda batch: batch['images'] / 255.,
        batches, 24, image_size=parts.SIZE, seed=parts.SEED, epochs=2., batch_size=parts.BATCH,
        base_learning_rate=1e30, momentum=.9, weight_decay=1., devices=jax.devices())
