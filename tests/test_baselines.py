"""The encoders that are judged; their scores are in test_evaluate.py."""

import types

import numpy as np
import pytest

from byol_jax import baselines
from byol_jax.errors import InputError
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


def test_an_unknown_name_lists_those_that_exist():
  with pytest.raises(InputError, match="'simclr'; it can name pretrained, random, supervised, pix"):
    baselines.check(types.SimpleNamespace(encoders=('pixels', 'simclr')), virtual_shards=4)


def test_a_supervised_batch_that_cannot_be_divided_is_refused():
  config = tiny.eval_config(supervised=dict(batch_size=30))
  with pytest.raises(InputError, match='supervised.batch_size is 30, which 4 '):
    baselines.check(config, virtual_shards=4)
  with config.unlocked():
    config.encoders = ('pretrained',)
  baselines.check(config, virtual_shards=4)
