"""Table 14b: dimension of the projection.

  python -m experiments.sweep --config=experiments/configs/ablations/table_14b.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_14b.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

The paper's 16 to 512 are a sixteenth to twice its 256. Other scales use the same ratios.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.get_config(scale)


PUBLISHED = {256: '72.5', 16: '69.9 +- 0.3', 32: '71.3', 64: '72.2', 128: '72.5', 512: '72.6'}


def rows(config) -> list[Row]:
  hidden, last = config.model.projector
  sizes = {dimension: (hidden, dimension * last // 256) for dimension in PUBLISHED}
  return [Row(f'dimension {sizes[dimension][-1]}',
              {'config.model.projector': sizes[dimension],
               'config.model.predictor': sizes[dimension]}, published)
          for dimension, published in PUBLISHED.items()]


get_hyper = base.sweep_of(get_config, rows)
