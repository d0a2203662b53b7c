"""Table 5b: predictor, target network and beta, from BYOL to SimCLR.

  python -m experiments.sweep --config=experiments/configs/ablations/table_5b.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_5b.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

Without a target network, gradients flow through both sides of the loss (Table 19 also has rows with
stopped gradients). alpha is 0.1. The paper's SimCLR has 67.9 in Tables 16 and 17; with BYOL's
projector and the scale of Eq. 8 it has 69.2 in appendix F.5 and 69.4 in this table.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.with_infonce(scale)


def rows(config) -> list[Row]:
  del config
  predictor, target, beta = base.NO_PREDICTOR, base.NO_TARGET, base.BETA_1
  return [
      Row('BYOL: predictor, target network, beta 0', {}, '72.5'),
      Row('predictor, target network, beta 1', beta, '70.9'),
      Row('target network, beta 1', {**predictor, **beta}, '70.7'),
      Row('SimCLR: beta 1', {**predictor, **target, **beta}, '69.4'),
      Row('predictor, beta 1', {**target, **beta}, '69.1'),
      Row('predictor, beta 0', target, '0.3'),
      Row('target network, beta 0', predictor, '0.2'),
      Row('beta 0', {**predictor, **target}, '0.1'),
  ]


get_hyper = base.sweep_of(get_config, rows)
