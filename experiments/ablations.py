"""Writes the results of a sweep over a table of the paper, next to the published numbers.

  python -m experiments.ablations --config=experiments/configs/ablations/table_5a.py:demo \\
      --workdir=DIR [--output=FILE.md] [--config.train.epochs=3 ...]

Give the same config, overrides and workdir as for the sweep. The numbers of the page are saved in
a JSON file beside it. Without --output the page is DIR/ablations.md.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments import command_line, config_files
from byol_jax import files
from byol_jax.errors import InputError
from byol_jax.sweep import points as sweep
from experiments.configs.ablations import base
from experiments.studies import ablations

command_line.define_path('output', None, 'The page; default: ablations.md in the workdir or here.')


def main() -> None:
  arguments, flag = flags.FLAGS, flags.FLAGS['config']
  path = config_flags.get_config_filename(flag)
  module, argument = config_files.module(path)
  if not hasattr(module, 'rows'):
    raise InputError(f'{module.__file__} has no rows(config); the configs in '
                     'experiments/configs/ablations have it.')
  rows = {}
  for row in module.rows(module.get_config(*argument)):
    points = sweep.points(
        lambda: module.get_config(*argument), lambda hyper, row=row: base.of_row(hyper, row),
        config_path=path, overrides=config_flags.get_override_values(flag),
        workdir=arguments.workdir)
    rows[row.name] = row.published, points
  output = arguments.output or files.local_path(arguments.workdir) / 'ablations.md'
  title = module.__doc__.splitlines()[0].rstrip('.')
  ablations.write(output, ablations.collect(title, path, rows), getattr(module, 'WHY', {}))
  print(f'Written to {pathlib.Path(output)}')


if __name__ == '__main__':
  command_line.run(main, computes=False, config='Config of a sweep, with rows(config).',
                   workdir='Folder of the sweep.')
