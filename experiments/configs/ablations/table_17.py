"""Table 17, Figure 3b: BYOL and SimCLR with parts of the augmentation removed.

  python -m experiments.sweep --config=experiments/configs/ablations/table_17.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_17.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

"view 2" is the paper's T' (Table 6). At CIFAR-10's scale there is no blur to begin with, so rows
that differ only in blur are the same points.

The published SimCLR has its own projector and loss scale. Here it has BYOL's, like the SimCLR of
Table 5b: 69.4 instead of 67.9 with all augmentations.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.with_infonce(scale)


def _only(*kept):
  """Crops only, plus the augmentations that the changes in `kept` would remove."""
  everything = (base.NO_FLIP, base.NO_JITTER, base.NO_GRAYSCALE, base.NO_BLUR, base.NO_SOLARIZE)
  return {key: value for change in everything if change not in kept
          for key, value in change.items()}


def rows(config) -> list[Row]:
  blur, solarize = 'config.view2.blur_probability', 'config.view2.solarize_probability'
  blurred = 0.5 if config.view1.blur_probability else 0.0
  symmetric = base.both_views(blur_probability=blurred, solarize_probability=0.2)
  flip, jitter, gray = base.NO_FLIP, base.NO_JITTER, base.NO_GRAYSCALE
  found = []
  for name, changes, byol, simclr in (
      ('baseline', {}, '72.5', '67.9'),
      ('no flip', flip, '71.9', '67.3'),
      ('no blur', base.NO_BLUR, '71.2', '65.2'),
      ('no colour', base.NO_COLOR, '63.4 +- 0.7', '45.7'),
      ('no jitter', jitter, '71.8', '63.7'),
      ('no grayscale', gray, '70.3', '61.9'),
      ('no blur in view 2', {blur: 0.0}, '72.4', '67.5'),
      ('no solarize in view 2', {solarize: 0.0}, '72.3', '67.7'),
      ('neither in view 2', {blur: 0.0, solarize: 0.0}, '72.2', '67.4'),
      ('blur 0.5 and solarize 0.2 in both', symmetric, '72.5', '68.1'),
      ('crops only', _only(), '59.4 +- 0.3', '40.3'),
      ('crops and flip', _only(flip), '60.1 +- 0.3', '40.2'),
      ('crops and colour', _only(jitter, gray), '70.7', '64.2'),
      ('crops and blur', _only(base.NO_BLUR), '61.1 +- 0.3', '41.7')):
    found += [Row(f'BYOL, {name}', changes, byol),
              Row(f'SimCLR, {name}', {**base.SIMCLR, **changes}, simclr)]
  return found


get_hyper = base.sweep_of(get_config, rows)
