"""Writes what was tried to find the recipes into docs/recipes.md, from the tables of the sweeps.

  python -m experiments.recipes [--output=docs/recipes.md]

Each config in experiments/configs/recipes is a sweep, whose table is kept under its name in
docs/measurements/recipes:

  python -m experiments.sweep --config=experiments/configs/recipes/NAME.py --workdir=DIR \\
      --table=docs/measurements/recipes/NAME.json
"""

from collections.abc import Mapping
import pathlib
from types import ModuleType
from typing import Any

from absl import flags

from experiments import command_line, config_files
from experiments.studies import recipes

CONFIGS = pathlib.Path('experiments/configs/recipes')
TABLES = pathlib.Path('docs/measurements/recipes')

command_line.define_path('output', 'docs/recipes.md', 'The page, which has text above the section.')


def sweeps() -> list[tuple[str, ModuleType, list[Mapping[str, Any]]]]:
  """The path of each config, its module, and the finished points of its table."""
  return [(str(path), config_files.module(str(path))[0], recipes.read(table_of(path)))
          for path in sorted(CONFIGS.glob('[!_]*.py'))]


def table_of(config: pathlib.Path) -> pathlib.Path:
  """The table that is kept of a sweep."""
  return TABLES / config.with_suffix('.json').name


def main() -> None:
  recipes.write(pathlib.Path(flags.FLAGS.output), sweeps())
  print(f'Written to {flags.FLAGS.output}')


if __name__ == '__main__':
  command_line.run(main, computes=False)
