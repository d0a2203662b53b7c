"""The encoders of an evaluation: the pretrained encoder and the baselines it is compared with."""

from collections.abc import Mapping
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from byol_jax import build
from byol_jax.config import plain
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.evaluation import supervised
from byol_jax.evaluation.contract import FrozenEncoder
from byol_jax.input_pipeline import loading, prefetch
from byol_jax.plots import tables

PIXELS = 'pixels'


def make(config, trees: Mapping[str, Any], meta: Mapping[str, Any], train: loading.Loader
         ) -> dict[str, FrozenEncoder]:
  """Makes every encoder that the config names, in the config's order.

  Args:
    config: config of an evaluation.
    trees: `online` and `state` of the pretraining's checkpoint.
    meta: metadata of the checkpoint.
    train: the training images.

  Raises:
    InputError: the supervised training cannot use the data.
  """
  size, model = train.config['image_size'], meta['config']['model']
  networks = build.build_model(model, train.data.num_classes)
  encode = lambda variables, views: networks.encode(*variables, views)
  training = lambda decay: build.build_model(
      dict(model, batch_norm_decay=decay), 0).encode_in_training
  makers = dict(
      pretrained=lambda: (trees['online'], trees['state']['online']),
      random=lambda: _untrained(config, networks, train),
      supervised=lambda: _with_labels(config, networks, train, size))
  encoders = {}
  for name in config.encoders:
    parallel.print_once(f'preparing {tables.NAMES[name]}')
    encoders[name] = (FrozenEncoder(lambda _, views: views.reshape(len(views), -1), ())
                      if name == PIXELS else FrozenEncoder(encode, makers[name](), training))
  return encoders


def _with_labels(config, networks, loader: loading.Loader, size: int):
  """Parameters and statistics of the supervised run."""
  # Lists can leave out the identities of the training images.
  if not loader.data.labelled:
    raise InputError("The 'supervised' encoder needs labelled training images, but these have no "
                     'labels; leave it out of config.encoders.')
  options = plain(config.supervised)
  policy = options.pop('view')
  view = loader.single_views(policy, config.seed)
  return tuple(supervised.train(
      networks, view, functools.partial(loader.train_batches, [policy]),
      loader.data.num_examples, image_size=size, seed=config.seed, devices=jax.local_devices(),
      **options))


def _untrained(config, networks, loader: loading.Loader):
  """Parameters at initialisation, and BatchNorm statistics of 20 batches of training views.

  The initial statistics do not fit any data, and would make the random encoder a weaker
  baseline, or by chance a stronger one.
  """
  devices, size = jax.local_devices(), loader.config['image_size']
  params, state = jax.jit(networks.init)(
      jax.random.key(config.seed), jnp.zeros((2, size, size, 3)))
  policy = plain(config.supervised.view)
  view = loader.single_views(policy, config.seed)

  def step(carry, batch):
    params, state = carry
    return params, networks.apply(params, state, view(batch), True)[1]

  moved = parallel.pmap_step(step, devices)
  carry = parallel.replicate((params, state), devices)
  unit = math.lcm(jax.device_count(), loader.config['virtual_shards'])
  batches = loader.train_batches([policy], seed=config.seed, first_step=0, last_step=20,
                                 batch_size=-(-config.batch_size // unit) * unit)
  for batch in prefetch.to_devices(batches, devices):
    carry = moved(carry, batch)
  return parallel.fetch(carry)
