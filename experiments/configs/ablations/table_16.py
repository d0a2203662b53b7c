"""Table 16, Figure 3a: batch size, of BYOL and of SimCLR.

  python -m experiments.sweep --config=experiments/configs/ablations/table_16.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_16.py --workdir=DIR

Scales, hardware and reading: base.py. None of its rows at ImageNet's scale has been run here.

As in the paper the gradients of N parts are averaged (`train.accumulation_steps`), and the target
moves once per N: learning rate and tau stay, only BatchNorm, and SimCLR's negatives, are of the
part. Published are batches of 4096 / N; where N parts are less than whole for each virtual shard,
the row is left out. A smaller batch without accumulation is
`--config.train.batch_size=...`; appendix G has batch 512 with learning rate 0.4, tau 0.9995: 73.7.
The published SimCLR has its own projector and scale of the loss; here it has BYOL's, which is
Table 5b's SimCLR: 69.4 instead of 67.9 with the whole batch.
"""

from experiments.configs.ablations import base
from experiments.configs.ablations.base import Row


def get_config(scale=''):
  return base.with_infonce(scale)


# Parts of the batch: BYOL, SimCLR.
PUBLISHED = {1: ('72.5', '67.9'), 2: ('72.4', '67.8'), 4: ('72.2', '67.4'), 8: ('72.2', '66.5'),
             16: ('71.8', '64.3 +- 2.1'), 32: ('69.6 +- 0.5', '63.6'),
             64: ('59.7 +- 1.5', '59.2 +- 2.9')}


def rows(config) -> list[Row]:
  batch, shards = config.train.batch_size, config.data.virtual_shards
  found = []
  for method, changes, column in (('BYOL', {}, 0), ('SimCLR', base.SIMCLR, 1)):
    found += [Row(f'{method}, batch {batch // parts}',
                  {**changes, 'config.train.accumulation_steps': parts}, published[column])
              for parts, published in PUBLISHED.items() if batch % (parts * shards) == 0]
  return found


get_hyper = base.sweep_of(get_config, rows)
