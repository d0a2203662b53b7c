"""Table 15b: weight decay.

  python -m experiments.sweep --config=experiments/configs/ablations/table_15b.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_15b.py --workdir=DIR

Scales, hardware and reading: base.py. None of its rows at ImageNet's scale has been run here.

The baseline's is 1e-6 in the paper; at other scales its ratios. Without any,
BYOL diverges (section 5).
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
