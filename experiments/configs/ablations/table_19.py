"""Table 19: predictor, parameters of the target, and beta.

  python -m experiments.sweep --config=experiments/configs/ablations/table_19.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_19.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

xi is the moving average, sg the online network without gradients, and theta the online network
with gradients. The paper prints the row "predictor, sg, beta 1" twice, with 70.2 and 70.1; here it
appears once.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.with_infonce(scale)


# target: (predictor, beta) -> published.
PUBLISHED = {
    'xi': {(1, 0): '72.5', (1, 1): '70.9', (0, 1): '70.7', (0, 0): '0.2'},
    'sg': {(1, 1): '70.1', (0, 1): '69.2', (1, 0): '5.5', (0, 0): '0.1'},
    'theta': {(0, 1): '69.4', (1, 1): '69.0', (1, 0): '0.3', (0, 0): '0.1'}}
TARGETS = dict(xi='moving_average', sg='stop_gradient', theta='none')


def rows(config) -> list[Row]:
  del config
  return [Row(f'{"predictor, " if predictor else ""}{target}, beta {beta}',
              {'config.train.target': TARGETS[target], **({} if predictor else base.NO_PREDICTOR),
               'config.train.objective_options.beta': float(beta)}, published)
          for target, scores in PUBLISHED.items()
          for (predictor, beta), published in scores.items()]


get_hyper = base.sweep_of(get_config, rows)
