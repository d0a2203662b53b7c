"""Table 14a: number of layers of the projector and predictor.

  python -m experiments.sweep --config=experiments/configs/ablations/table_14a.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_14a.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

Hidden and output layers have the same width as the baseline's.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


PUBLISHED = {(1, 1): '61.9', (1, 2): '65.0', (1, 3): '65.7', (2, 1): '71.5', (2, 2): '72.5',
             (2, 3): '71.4', (3, 1): '71.4', (3, 2): '72.1', (3, 3): '72.1'}


def rows(config) -> list[Row]:
  hidden, last = config.model.projector
  sizes = lambda layers: (hidden,) * (layers - 1) + (last,)
  # The baseline comes first.
  depths = sorted(PUBLISHED, key=lambda depths: depths != (2, 2))
  return [Row(f'projector {projector}, predictor {predictor}',
              {'config.model.projector': sizes(projector),
               'config.model.predictor': sizes(predictor)}, PUBLISHED[projector, predictor])
          for projector, predictor in depths]


get_hyper = base.sweep_of(get_config, rows)
