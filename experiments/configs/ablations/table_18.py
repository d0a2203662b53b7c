"""Table 18: beta and the temperature alpha.

  python -m experiments.sweep --config=experiments/configs/ablations/table_18.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_18.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.with_infonce(scale)


ALPHAS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
PUBLISHED = {0.1: '72.2 72.4 72.7 72.6 72.5 72.5', 0.5: '70.9 72.0 72.7 72.7 72.6 72.5',
             1.0: '53.9+-0.5 70.9 72.7 72.7 72.6 72.6'}


def rows(config) -> list[Row]:
  del config
  options = 'config.train.objective_options.'
  return [Row('BYOL: beta 0', {}, '72.5')] + [
      Row(f'beta {beta:g}, alpha {alpha:g}',
          {f'{options}beta': beta, f'{options}temperature': alpha}, published.replace('+-', ' +- '))
      for beta, line in PUBLISHED.items() for alpha, published in zip(ALPHAS, line.split())]


get_hyper = base.sweep_of(get_config, rows)
