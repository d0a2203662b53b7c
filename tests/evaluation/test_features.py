import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import plugins
from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from byol_jax.evaluation import features
from byol_jax.evaluation.contract import Features, check_features
from tests.evaluators import by_features

NUM_IMAGES = 11


def encode(variables, batch):
  images = batch['images'].astype(jnp.float32) / 255
  return jnp.tanh(images.reshape(len(images), -1) @ variables['weights'])


def reference(variables, images):
  return np.tanh(images.reshape(len(images), -1) / 255. @
                 np.asarray(variables['weights'], np.float64))


@pytest.fixture(scope='module')
def split():
  random = np.random.default_rng(0)
  return dict(
      sample_id=np.arange(1, 4 * NUM_IMAGES, 4, dtype=np.int32),
      images=random.integers(0, 256, (NUM_IMAGES, 4, 5, 3), dtype=np.uint8),
      labels=random.integers(0, 3, NUM_IMAGES, dtype=np.int32))


def batches(split, *sizes):
  """Batches of these sizes, then of the last of them until the end."""
  start = 0
  for size in itertools.chain(sizes, itertools.repeat(sizes[-1])):
    yield {name: array[start:start + size] for name, array in split.items()}
    start += size
    if start >= NUM_IMAGES:
      return


def make_variables(seed):
  return {'weights': 0.1 * jax.random.normal(jax.random.key(seed), (60, 7))}


@pytest.mark.parametrize('num_devices', [1, 4])
@pytest.mark.parametrize('batch_size', [1, 3, 4, 11, 64])
def test_every_image_once_in_order(split, num_devices, batch_size):
  found = features.extract(encode, make_variables(0), batches(split, batch_size),
                           batch_size=batch_size, devices=jax.devices()[:num_devices])
  assert found.embeddings.dtype == np.float32
  np.testing.assert_allclose(found.embeddings, reference(make_variables(0), split['images']),
                             atol=1e-5)
  np.testing.assert_array_equal(found.labels, split['labels'])
  np.testing.assert_array_equal(found.sample_id, split['sample_id'])


@pytest.mark.parametrize('name', ['images', 'crop1'])
def test_pixels_reach_the_encoder_as_they_are(split, devices, name):
  def pixels(unused_variables, batch):
    assert batch.keys() == {name}
    chex.assert_type(batch[name], jnp.uint8)
    return batch[name].reshape(len(batch[name]), -1)

  renamed = {name if key == 'images' else key: array for key, array in split.items()}
  found = features.extract(pixels, {}, batches(renamed, 4), batch_size=4, devices=devices)
  np.testing.assert_array_equal(found.embeddings, split['images'].reshape(NUM_IMAGES, -1))


@pytest.fixture
def counted():
  """The encoder, and a list that grows whenever it is traced."""
  traces = []

  def counted(variables, batch):
    traces.append(1)
    return encode(variables, batch)
  return counted, traces


def test_new_parameters_compile_nothing(split, devices, counted):
  counted, traces = counted
  options = dict(batch_size=4, devices=devices)
  features.extract(counted, make_variables(0), batches(split, 4), **options)
  first = len(traces)
  found = features.extract(counted, make_variables(1), batches(split, 4), **options)
  assert len(traces) == first
  np.testing.assert_allclose(found.embeddings, reference(make_variables(1), split['images']),
                             atol=1e-5)


def test_batches_from_which_images_are_missing_compile_nothing(split, devices, counted):
  counted, traces = counted
  options = dict(batch_size=4, devices=devices)
  features.extract(counted, make_variables(0), batches(split, 4), **options)
  first = len(traces)
  found = features.extract(counted, make_variables(0), batches(split, 3, 1, 4, 2), **options)
  assert len(traces) == first
  np.testing.assert_allclose(found.embeddings, reference(make_variables(0), split['images']),
                             atol=1e-5)
  np.testing.assert_array_equal(found.labels, split['labels'])
  np.testing.assert_array_equal(found.sample_id, split['sample_id'])


def test_parameters_committed_to_one_device(split):
  variables = jax.device_put(make_variables(0), jax.devices()[0])
  found = features.extract(encode, variables, batches(split, 8), batch_size=8,
                           devices=jax.devices()[:4])
  np.testing.assert_allclose(found.embeddings, reference(variables, split['images']), atol=1e-5)


def test_unlabelled_images(split):
  unlabelled = {name: array for name, array in split.items() if name != 'labels'}
  found = features.extract(encode, make_variables(0), batches(unlabelled, 8), batch_size=8,
                           devices=jax.devices()[:1])
  assert found.labels is None
  np.testing.assert_array_equal(found.sample_id, split['sample_id'])


@pytest.mark.parametrize('batch_size, num_devices', [(0, 1), (8, 0)])
def test_rejects_empty_batches(split, batch_size, num_devices):
  with pytest.raises(InputError, match=f'batch_size is {batch_size} on {num_devices} devices'):
    features.extract(encode, make_variables(0), batches(split, 8), batch_size=batch_size,
                     devices=jax.devices()[:num_devices])


def test_rejects_a_split_without_a_batch(devices):
  with pytest.raises(InputError, match='no readable image'):
    features.extract(encode, make_variables(0), iter(()), batch_size=8, devices=devices)


def test_images_of_several_classes_keep_their_rows_of_labels(split):
  labels = np.random.default_rng(1).integers(-1, 2, (NUM_IMAGES, 5), np.int32)
  shuffled = {name: array[::-1] for name, array in dict(split, labels=labels).items()}
  found = features.extract(encode, make_variables(0), batches(shuffled, 4), batch_size=4,
                           devices=jax.devices()[:2])
  assert found.labels.dtype == np.int32
  np.testing.assert_array_equal(found.labels, labels)
  check_features('train', found, 5, multi_label=True)
  with pytest.raises(InputError, match=r'train labels, \[11, 5\], give several classes per '
                                       'image; this evaluator needs one class'):
    check_features('train', found, 5)
  with pytest.raises(InputError, match=r'labels run from -1 to 2, outside -1 \.\.\. 1'):
    check_features('test', found._replace(labels=np.where(labels == 1, 2, labels)), 5,
                   multi_label=True)
  with pytest.raises(InputError, match=r'\[11\], give one class per image; .* several'):
    check_features('test', found._replace(labels=split['labels']), 5, multi_label=True)


@pytest.mark.parametrize('name', ['knn', 'linear', 'linear_features'])
def test_evaluators_of_one_class_refuse_several(name):
  several = Features(np.ones((4, 3), np.float32), np.zeros((4, 2), np.int32), np.arange(4))
  fit, _ = by_features.functions(plugins.load('evaluators', name))
  own = plugin_options('evaluators', name).to_dict()
  with pytest.raises(InputError, match='several classes per image'):
    fit(several, several, num_classes=2, **own)
