"""The demonstration with AdamW, nine epochs.

  python -m experiments.sweep --config=experiments/configs/recipes/demo_adamw.py --workdir=DIR \\
      --table=docs/measurements/recipes/demo_adamw.json

Otherwise as demo_screen.py. Hardware: 2 CPU cores, 2 to 3 minutes per point, two at once.
"""

import ml_collections

from experiments.configs.recipes import demo_screen


def get_config() -> ml_collections.ConfigDict:
  return demo_screen.with_optimizer('adamw', weight_decay=0.05)


def get_hyper(hyper):
  short = hyper.product([hyper.sweep('config.train.base_learning_rate', (4e-3, 1e-2)),
                         hyper.sweep('config.seed', range(2))])
  long = {'config.train.base_learning_rate': 1e-2, 'config.train.epochs': 18.0, 'config.seed': 1}
  return hyper.chainit([short, [long]])
