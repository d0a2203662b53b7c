"""The demonstration with one change at a time, nine epochs.

  python -m experiments.sweep --config=experiments/configs/recipes/demo_screen.py --workdir=DIR \\
      --table=docs/measurements/recipes/demo_screen.json

The base is configs/demo_paper.py with a normalisation after the projector, tau 0.97 and half as
many epochs again.
Hardware: 2 CPU cores, 2 to 3 minutes per point, two at once. Two seeds of the base differ by
14 points, so most rows say nothing. A normalisation after the predictor leaves the embeddings fewer
than two directions.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import demo_paper

VARIANTS = (
    {},
    {'model.predictor_output_norm': True},
    {'train.batch_size': 32},
    {'train.learning_rate_multipliers.biases_and_norms': 0.12},
    {'train.base_tau': 0.95},
    {'train.base_tau': 0.98},
    {'model.projector': (512, 128), 'model.predictor': (512, 128)},
    {'view1.crop_area': (0.3, 1.0), 'view2.crop_area': (0.3, 1.0)},
    {'train.base_learning_rate': 2.0},
    {'train.base_learning_rate': 0.5},
    {'train.warmup_epochs': 3.0},
    {'train.constant_predictor_rate': True},
    {'model.initial_scale': 1.4142},
    {'train.optimizer_options.weight_decay': 1e-4},
    {'model.predictor': (64,)},
)


def get_config() -> ml_collections.ConfigDict:
  config = demo_paper.get_config().unlock()
  config.model.projector_output_norm = True
  config.train.update(epochs=9.0, base_tau=0.97)
  config.evals.update(every_epochs=3.0, afterwards=())
  config.checkpoint.every_epochs = 0.0
  return config.lock()


def with_optimizer(name: str, weight_decay: float) -> ml_collections.ConfigDict:
  """The base with another optimizer; its learning rate has to be set too."""
  config = get_config().unlock()
  config.train.optimizer = name
  config.train.optimizer_options = plugin_options('optimizers', name)
  config.train.optimizer_options.weight_decay = weight_decay
  return config.lock()


def get_hyper(hyper):
  changes = [{f'config.{key}': value for key, value in variant.items()} for variant in VARIANTS]
  return hyper.product([hyper.sweep('config.seed', range(2)), changes])
