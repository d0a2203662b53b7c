"""Prints one table of evaluations that differ only in their seed: mean and spread.

  python -m experiments.table --results=DIR1,DIR2,DIR3
"""

from absl import flags

from experiments import command_line
from byol_jax.evaluation import results
from byol_jax.plots import tables


def main() -> None:
  found = results.read_seeds(flags.FLAGS.results.split(','))
  print(tables.markdown(tables.scores(found)))


if __name__ == '__main__':
  command_line.run(main, computes=False, results='Workdirs of evaluations, separated by commas.')
