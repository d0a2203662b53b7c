"""Table 20: normalisation of the vectors that the loss compares.

  python -m experiments.sweep --config=experiments/configs/ablations/table_20.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_20.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

Without normalisation the projections grow, to a length of about 3e6 in the paper.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.with_infonce(scale)


PUBLISHED = dict(l2='72.5', layer_norm='72.5 +- 0.4', none='67.4', batch_norm='65.3')


def rows(config) -> list[Row]:
  del config
  return [Row(name, {'config.train.objective_options.normalization': name}, published)
          for name, published in PUBLISHED.items()]


get_hyper = base.sweep_of(get_config, rows)
