import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.datasets import Split
from byol_jax.evaluators import Features, accuracy, check_features, features, label_ranks

NUM_IMAGES = 11


def encode(variables, images):
  return jnp.tanh(images.reshape(len(images), -1) @ variables['weights'])


def reference(variables, split):
  images = split.images.reshape(NUM_IMAGES, -1) / 255.
  return np.tanh(images @ np.asarray(variables['weights'], np.float64))


@pytest.fixture
def split():
  random = np.random.default_rng(0)
  return Split(
      sample_id=np.arange(1, 4 * NUM_IMAGES, 4, dtype=np.int32),
      images=random.integers(0, 256, (NUM_IMAGES, 4, 5, 3), dtype=np.uint8),
      labels=random.integers(0, 3, NUM_IMAGES, dtype=np.int32),
      num_examples=4 * NUM_IMAGES, num_classes=3)


def make_variables(seed):
  return {'weights': 0.1 * jax.random.normal(jax.random.key(seed), (60, 7))}


@pytest.mark.parametrize('num_devices', [1, 4])
@pytest.mark.parametrize('batch_size', [1, 3, 4, 11, 64])
def test_every_image_once_in_order(split, num_devices, batch_size):
  found = features.extract(encode, make_variables(0), split, batch_size=batch_size,
                           devices=jax.devices()[:num_devices])
  assert found.embeddings.dtype == np.float32
  np.testing.assert_allclose(found.embeddings, reference(make_variables(0), split), atol=1e-5)
  np.testing.assert_array_equal(found.labels, split.labels)
  np.testing.assert_array_equal(found.sample_id, split.sample_id)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_images_reach_the_encoder_as_fractions(split, num_devices):
  def pixels(unused_variables, images):
    chex.assert_type(images, jnp.float32)
    return images.reshape(len(images), -1)

  found = features.extract(pixels, {}, split, batch_size=4, devices=jax.devices()[:num_devices])
  expected = (split.images / np.float32(255)).reshape(NUM_IMAGES, -1)
  np.testing.assert_allclose(found.embeddings, expected, rtol=1e-6)


@pytest.mark.parametrize('num_devices', [1, 4])
def test_new_parameters_compile_nothing(split, num_devices):
  traces = []

  def counted(variables, images):
    traces.append(1)
    return encode(variables, images)

  options = dict(batch_size=4, devices=jax.devices()[:num_devices])
  features.extract(counted, make_variables(0), split, **options)
  first = len(traces)
  found = features.extract(counted, make_variables(1), split, **options)
  assert len(traces) == first
  np.testing.assert_allclose(found.embeddings, reference(make_variables(1), split), atol=1e-5)


def test_parameters_committed_to_one_device(split):
  variables = jax.device_put(make_variables(0), jax.devices()[0])
  found = features.extract(encode, variables, split, batch_size=8, devices=jax.devices()[:4])
  np.testing.assert_allclose(found.embeddings, reference(variables, split), atol=1e-5)


def test_unlabelled_images(split):
  found = features.extract(encode, make_variables(0), split._replace(labels=None), batch_size=8,
                           devices=jax.devices()[:1])
  assert found.labels is None


@pytest.mark.parametrize('batch_size, num_devices', [(0, 1), (8, 0)])
def test_rejects_empty_batches(split, batch_size, num_devices):
  with pytest.raises(ValueError, match=f'batch_size is {batch_size} on {num_devices} devices'):
    features.extract(encode, make_variables(0), split, batch_size=batch_size,
                     devices=jax.devices()[:num_devices])


def test_accuracy_against_sorting():
  random = np.random.default_rng(0)
  # Few distinct scores, so that there are ties.
  scores = random.integers(0, 4, (200, 8)).astype(np.float32)
  labels = random.integers(0, 8, 200)
  order = np.argsort(-scores, axis=1, kind='stable')
  expected = {f'top{n}': np.mean((order[:, :n] == labels[:, None]).any(axis=1)) for n in (1, 5)}
  assert accuracy(label_ranks(scores, labels), 8) == pytest.approx(expected)


def test_a_score_that_is_not_a_number_is_never_correct():
  scores = np.array([[np.nan, np.nan, np.nan], [np.nan, 1, 0], [0, 1, np.nan]])
  np.testing.assert_array_equal(label_ranks(scores, np.array([0, 0, 1])), [3, 3, 1])


@pytest.mark.parametrize('num_classes, names', [(5, {'top1'}), (6, {'top1', 'top5'})])
def test_top5_needs_more_than_five_classes(num_classes, names):
  assert accuracy(np.zeros(3, np.int32), num_classes).keys() == names


@pytest.fixture
def usable():
  return Features(np.ones((3, 2), np.float32), np.array([0, 1, 2], np.int32),
                  np.arange(3, dtype=np.int32))


def test_usable_features_pass(usable):
  check_features('train', usable, 3)


@pytest.mark.parametrize('changes, message', [
    (dict(labels=None), '3 train images have no labels'),
    (dict(labels=np.array([0, 1, 3])), r'run from 0 to 3, outside 0 \.\.\. 2'),
    (dict(labels=np.array([-1, 1, 2])), 'run from -1 to 2'),
    (dict(embeddings=np.array([[0, np.nan], [np.inf, 1], [0, 1]], np.float32)),
     '2 of the 3 train images have embeddings that are not finite'),
    (dict(embeddings=np.ones((0, 2), np.float32), sample_id=np.arange(0)), 'hold no images'),
])
def test_unusable_features(usable, changes, message):
  with pytest.raises(ValueError, match=message):
    check_features('train', usable._replace(**changes), 3)
