"""A run small enough for tests: a tiny network on 64 generated images of 16 pixels."""

import functools

from byol_jax.config import plugin_options
from experiments.configs import default
from experiments.configs.eval import default as eval_default


def config(**overrides):
  """The config, with overrides such as train__epochs=2.0 for config.train.epochs."""
  config = default.get_config().unlock()
  config.data.update(
      center_share=1.0,
      dataset='shapes', image_size=16, virtual_shards=4,
      options=dict(image_size=16, train_examples=64, validation_examples=20, test_examples=30,
                   seed=0))
  config.model.update(projector=(32, 16), predictor=(24, 16))
  config.model.encoder_options.update(depth=10, width=.125, stem='medium')
  config.train.update(epochs=3.0, batch_size=16, base_learning_rate=1.0, warmup_epochs=1.0)
  config.evals.update(every_epochs=2.0, batch_size=32)
  config.evals.knn.k = 5
  config.log.every_steps = 3
  config.checkpoint.every_epochs = 1.0
  for name, value in overrides.items():
    *sections, key = name.split('__')
    section = config
    for part in sections:
      section = section[part]
    section[key] = value
  return config.lock()


def eval_config(**overrides):
  """All encoders, both evaluators."""
  config = eval_default.get_config().unlock()
  config.batch_size = 32
  config.encoders = ('pretrained', 'random', 'pixels', 'supervised')
  config.evaluators.linear_features = plugin_options('evaluators', 'linear_features')
  config.evaluators.linear_features.update(l2_values=(1e-2, 1.), max_iterations=20)
  config.evaluators.knn = plugin_options('evaluators', 'knn')
  config.evaluators.knn.k = 5
  config.evaluators.linear = plugin_options('evaluators', 'linear')
  config.evaluators.linear.update(epochs=2.0, batch_size=16, learning_rates=(.1, 1.))
  config.supervised.update(epochs=1.0, batch_size=16)
  config.update(overrides)
  return config.lock()


def tuning_config():
  """Two points of fine-tuning, and the last run."""
  config = eval_default.get_config().unlock()
  config.evaluators.fine_tuned_transfer = plugin_options('evaluators', 'fine_tuned_transfer')
  config.evaluators.fine_tuned_transfer.update(
      learning_rates=(.01, .1), weight_decays=(0.,), steps=10, batch_size=64)
  return config.lock()


def config_with(optimizer):
  """The run with another optimizer."""
  return config(train__optimizer=optimizer, train__base_learning_rate=.1,
                train__optimizer_options=plugin_options('optimizers', optimizer))


def records_config():
  """The same on JPEG files in TFRecords; data.options.data_dir is to be given."""
  options = plugin_options('datasets', 'tfds')
  options.update(name='tiny', test_split='')
  return config(data__dataset='tfds', data__options=options, data__pipeline='tf_data',
                evals__knn=dict(k=5, temperature=.07))


def get_config(kind='pretrain'):
  """For commands: --config=tests/tiny.py, or with :eval, :tuning, ... after it."""
  return dict(eval=eval_config, tuning=tuning_config, records=records_config, pretrain=config,
              sgd=functools.partial(config_with, 'sgd'),
              adamw=functools.partial(config_with, 'adamw'))[kind]()
