"""Table 21: no moving average, and the predictor's learning rate times lambda.

  python -m experiments.sweep --config=experiments/configs/ablations/table_21.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_21.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

With lambda 0 the predictor keeps its initial weights. (The text of section 5 has 66.5 for 10.) The
last row uses a linear predictor fitted to the batch by least squares (section 5, appendix I.2).
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


PUBLISHED = {0.0: '0.01', 1.0: '5.5', 2.0: '62.8 +- 1.5', 10.0: '66.6', 20.0: '66.3 +- 0.3'}


def rows(config) -> list[Row]:
  del config
  stopped = {'config.train.target': 'stop_gradient'}
  multiplier = 'config.train.learning_rate_multipliers.predictor'
  closed = {'config.model.predictor': (), 'config.train.objective': 'closed_form'}
  return [Row('baseline', {}, '72.5'),
          *(Row(f'no moving average, lambda {value:g}', {**stopped, multiplier: value}, published)
            for value, published in PUBLISHED.items()),
          Row('no moving average, linear predictor of least squares', {**stopped, **closed},
              '52.5')]


get_hyper = base.sweep_of(get_config, rows)
