"""Table 20: normalisation of what the loss compares.

  python -m experiments.sweep --config=experiments/configs/ablations/table_20.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_20.py --workdir=DIR

Scales, hardware and reading: base.py. None of its rows at ImageNet's scale has been run here.

Without any the projections grow, to a length of about 3e6 in the paper.
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
