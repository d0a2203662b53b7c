"""Table 15a: base learning rate.

  python -m experiments.sweep --config=experiments/configs/ablations/table_15a.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_15a.py --workdir=DIR

Scales, hardware and reading: base.py. None of its rows at ImageNet's scale has been run here.

The baseline's is 0.3 in the paper; at other scales its ratios.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


PUBLISHED = {0.3: '72.5', 0.01: '34.8 +- 3.0', 0.1: '65.0', 0.2: '71.7', 0.4: '72.3', 0.5: '71.5',
             1.0: '69.4'}


def rows(config) -> list[Row]:
  return base.proportional(config.train.base_learning_rate, 0.3, PUBLISHED,
                           'config.train.base_learning_rate', 'learning rate')


get_hyper = base.sweep_of(get_config, rows)
