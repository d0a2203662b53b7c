"""Table 15b: weight decay.

  python -m experiments.sweep --config=experiments/configs/ablations/table_15b.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_15b.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

The paper's baseline has 1e-6. At other scales the rows keep the paper's ratios to the baseline.
Without weight decay BYOL diverges (section 5).
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


PUBLISHED = {1e-6: '72.5', 1e-7: '72.1', 5e-7: '72.6', 5e-6: '71.0 +- 0.3', 1e-5: '69.6 +- 0.4'}


def rows(config) -> list[Row]:
  return base.proportional(config.train.optimizer_options.weight_decay, 1e-6, PUBLISHED,
                           'config.train.optimizer_options.weight_decay', 'weight decay')


get_hyper = base.sweep_of(get_config, rows)
