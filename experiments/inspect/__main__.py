"""Prints the contents of a checkpoint: step, config, parameter counts, digests.

  python -m experiments.inspect --checkpoint=DIR [--step=N]
  python -m experiments.inspect --checkpoint=DIR --verify   checks every checkpoint
"""

# This is a folder without __init__.py, because a module `inspect` would hide Python's own from
# scripts that are run in the folder above.

import json
import sys

if not __package__:
  sys.exit('error: run this as python -m experiments.inspect, in the folder of the clone.')

from absl import flags

from experiments import command_line
from byol_jax import checkpoint, model
from byol_jax.errors import InputError

flags.DEFINE_integer('step', None, 'Step of the checkpoint; by default the newest valid one.')
flags.DEFINE_bool('verify', False, 'Compare all files of all checkpoints with their digests.')


def main() -> None:
  if flags.FLAGS.verify:
    verify(flags.FLAGS.checkpoint)
  else:
    describe(flags.FLAGS.checkpoint, flags.FLAGS.step)


def verify(folder: str) -> None:
  steps = checkpoint.steps(folder)
  if not steps:
    raise InputError(f'No checkpoint in {folder}.')
  damaged = {step: what for step in steps if (what := checkpoint.verify(folder, step))}
  for step in steps:
    print(f'step {step}: {damaged.get(step, "valid")}')
  if damaged:
    sys.exit(f'error: {len(damaged)} of {len(steps)} checkpoints are damaged.')


def describe(folder: str, step: int | None) -> None:
  trees, meta = checkpoint.restore_trees(folder, checkpoint.TREES, step)
  print('config:', json.dumps(meta['config'], indent=2))
  print('resolved:', json.dumps(meta['resolved']))
  if 'source' in meta:
    print('source:', json.dumps(meta['source']))
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
