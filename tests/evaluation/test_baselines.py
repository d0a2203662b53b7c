"""The encoders that are evaluated; their scores are in test_evaluate.py."""

import types

import numpy as np

from byol_jax.evaluation import baselines
from tests import tiny


def make(*names):
  loader = types.SimpleNamespace(config=dict(image_size=16),
                                 data=types.SimpleNamespace(num_classes=10))
  trees = dict(online='parameters', state=dict(online='statistics', target='others'))
  return baselines.make(types.SimpleNamespace(encoders=names), trees,
                        dict(config=tiny.config().to_dict()), loader)


def test_encoders_come_in_the_order_of_the_config():
  encoders = make('pixels', 'pretrained')
  assert list(encoders) == ['pixels', 'pretrained']
  assert encoders['pretrained'].variables == ('parameters', 'statistics')
  assert callable(encoders['pretrained'].training(.5))


def test_raw_pixels_are_their_own_embedding_and_have_nothing_to_train():
  pixels = make('pixels')['pixels']
  images = np.random.default_rng(0).random((2, 4, 4, 3))
  np.testing.assert_array_equal(pixels.encode((), images), images.reshape(2, 48))
  assert pixels.training is None
