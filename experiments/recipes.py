"""Writes what was tried to find the recipes into docs/recipes.md, from the tables of the sweeps.

  python -m experiments.recipes [--output=docs/recipes.md]

Each config in experiments/configs/recipes is a sweep, whose table is kept under its name in
docs/measurements/recipes:

  python -m experiments.sweep --config=experiments/configs/recipes/NAME.py --workdir=DIR \\
      --table=docs/measurements/recipes/NAME.json
"""

import pathlib

from absl import flags

from experiments import command_line
from experiments.studies import recipes

command_line.define_path('output', 'docs/recipes.md', 'The page, which has text above the section.')


def main() -> None:
  recipes.write(pathlib.Path(flags.FLAGS.output), recipes.sweeps())
  print(f'Written to {flags.FLAGS.output}')


if __name__ == '__main__':
  command_line.run(main, computes=False)
