"""Table 22: no moving average, and different learning rates for both heads.

  python -m experiments.sweep --config=experiments/configs/ablations/table_22.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_22.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

mu multiplies the projector's learning rate, lambda the predictor's.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


MULTIPLIERS = (1.0, 1.5, 2.0, 5.0, 10.0)
# One string per mu, one number per lambda.
PUBLISHED = ('3.2 25.7 60.8 66.7 66.9', '1.4 9.2 55.2 61.5 66.0', '2.0 5.3 15.8 60.9 66.3',
             '1.5 2.5 2.5 20.5 60.5', '0.1 2.1 1.9 2.8 8.3')


def rows(config) -> list[Row]:
  del config
  rates = 'config.train.learning_rate_multipliers.'
  return [Row(f'mu {projector:g}, lambda {predictor:g}',
              {'config.train.target': 'stop_gradient', f'{rates}projector': projector,
               f'{rates}predictor': predictor}, published)
          for projector, line in zip(MULTIPLIERS, PUBLISHED)
          for predictor, published in zip(MULTIPLIERS, line.split())]


get_hyper = base.sweep_of(get_config, rows)
