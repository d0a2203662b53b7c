"""Table 5a: tau of the target's moving average.

  python -m experiments.sweep --config=experiments/configs/ablations/table_5a.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_5a.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


def rows(config) -> list[Row]:
  del config  # No row depends on the size of the run.
  tau = 'config.train.base_tau'
  return [
      Row('tau 0.99', {tau: 0.99}, '72.5'),
      Row('tau 1: constant random network', {tau: 1.0}, '18.8 +- 0.7'),
      Row('tau 0.999', {tau: 0.999}, '69.8'),
      Row('tau 0.9', {tau: 0.9}, '68.4'),
      Row('tau 0: stop gradient of the online network',
          {tau: 0.0, 'config.train.tau_schedule': 'constant'}, '0.3'),
  ]


get_hyper = base.sweep_of(get_config, rows)
