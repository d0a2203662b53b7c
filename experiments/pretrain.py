"""Pretrains with BYOL; run it again with the same flags to resume.

  python -m experiments.pretrain --config=experiments/configs/demo.py --workdir=DIR \\
      [--config.train.batch_size=128 ...]
"""

from absl import flags

from experiments import command_line
from byol_jax import train


def main() -> None:
  train.pretrain(flags.FLAGS.config, flags.FLAGS.workdir)


if __name__ == '__main__':
  command_line.run(main, job=True, config='File with get_config().',
                   workdir='Folder of the run: checkpoints, logs.')
