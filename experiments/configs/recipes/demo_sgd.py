"""The demonstration with SGD, nine epochs.

  python -m experiments.sweep --config=experiments/configs/recipes/demo_sgd.py --workdir=DIR \\
      --table=docs/measurements/recipes/demo_sgd.json

Otherwise as demo_screen.py. Hardware: 2 CPU cores, 2 to 3 minutes per point, two at once.
"""

import ml_collections

from experiments.configs.recipes import demo_screen


def get_config() -> ml_collections.ConfigDict:
  return demo_screen.with_optimizer('sgd', weight_decay=5e-4)


def get_hyper(hyper):
  return hyper.product([hyper.sweep('config.train.base_learning_rate', (0.12, 0.5)),
                        hyper.sweep('config.seed', range(2))])
