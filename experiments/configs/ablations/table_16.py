"""Table 16, Figure 3a: batch size of BYOL and SimCLR.

  python -m experiments.sweep --config=experiments/configs/ablations/table_16.py --workdir=DIR
  python -m experiments.ablations --config=experiments/configs/ablations/table_16.py --workdir=DIR

base.py describes scales, hardware and how to read the results. No row has been run at ImageNet's
scale.

As in the paper, the gradients of N parts are averaged (`train.accumulation_steps`) and the target
is updated once per N parts. Learning rate and tau stay the same; only BatchNorm, and SimCLR's
negatives, see one part at a time. The published batch sizes are 4096 / N. A row is left out if the
batch cannot be divided evenly into N parts for each virtual shard. For a smaller batch without
accumulation, set `--config.train.batch_size=...`; appendix G reports 73.7 for batch 512 with
learning rate 0.4 and tau 0.9995.

The published SimCLR has its own projector and loss scale. Here it has BYOL's, like the SimCLR of
Table 5b: 69.4 instead of 67.9 with the whole batch.
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
