"""Prints what a checkpoint holds: step, config, parameter counts, digests.

  python -m experiments.inspect --checkpoint=DIR
"""

import json

from absl import flags

from byol_jax import checkpoint, model
from experiments import command_line


def main() -> None:
  trees, meta = checkpoint.restore_trees(flags.FLAGS.checkpoint, checkpoint.TREES)
  print('config:', json.dumps(meta['config'], indent=2))
  print('resolved:', json.dumps(meta['resolved']))
  print('step:', meta['step'])
  online = trees['online']
  print('parameters: encoder', model.count_parameters(model.encoder_only(online)),
        *(f'{head} {model.count_parameters(online, head)}'
          for head in ('projector', 'predictor', 'classifier')),
        'total', model.count_parameters(online))
  for name in checkpoint.TREES:
    print(f'sha256 {name}: {meta["digests"][name]}')


if __name__ == '__main__':
  command_line.run(main, checkpoint='Workdir of a pretraining run.')
