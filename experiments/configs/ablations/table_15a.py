"""Table 15a: base learning rate.

  python -m experiments.sweep --config=experiments/configs/ablations/table_15a.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_15a.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

The paper's baseline has 0.3. At other scales the rows keep the paper's ratios to the baseline.
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
