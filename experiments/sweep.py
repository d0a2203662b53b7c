"""Runs the points of a config's get_hyper; run it again to resume and skip finished points.

  python -m experiments.sweep --config=experiments/configs/demo_sweep.py --workdir=DIR \\
      [--parallel=2] [--config.train.epochs=3 ...]
  ... --status      prints the table and runs nothing
  ... --print       prints a command for each point that is not done
  ... --slurm=FILE  writes an array job of these points for sbatch
  ... --table=FILE.json  keeps the table there, and skips the points that it holds as done, even
                    without their folders
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from experiments import command_line, config_files
from byol_jax import files
from byol_jax.distributed import devices
from byol_jax.errors import InputError
from byol_jax.plots import tables
from byol_jax.sweep import points as sweep
from byol_jax.sweep import runner, table

flags.DEFINE_integer('parallel', 1, 'Number of points to run at once.')
flags.DEFINE_bool('status', False, 'Print the table and run nothing.')
flags.DEFINE_bool('print', False, 'Print a command per point that is not done, and run nothing.')
command_line.define_path('table', None, 'The table, whose finished points are not run again; '
                         'default: in the workdir, without this use.')
command_line.define_path('slurm', None, 'Write an array job of them to this file; run nothing.')


def main() -> None:
  arguments, flag = flags.FLAGS, flags.FLAGS['config']
  path = config_flags.get_config_filename(flag)
  module, argument = config_files.module(path)
  if not hasattr(module, 'get_hyper'):
    raise InputError(f'{module.__file__} has no get_hyper(hyper), which defines the sweep; '
                     'experiments/configs/demo_sweep.py is an example.')
  found = sweep.points(
      lambda: module.get_config(*argument),
      lambda hyper: config_files.guarded(path, module.get_hyper, hyper, *argument),
      config_path=path, overrides=config_flags.get_override_values(flag), workdir=arguments.workdir)
  for evaluation in {stage.arguments[2].removeprefix('--config=') for point in found
                     for stage in point.stages[1:]}:
    config_files.read(evaluation, 'evaluation')
  place = (files.local_path(arguments.table) if arguments.table else
           files.local_path(arguments.workdir) / pathlib.Path(module.__file__).stem)
  kept = table.finished(place) if arguments.table else None
  write = lambda: table.write(found, place, kept)
  found_here = [point for point in found if point.digest not in (kept or ())]
  left = [point for point in found_here if sweep.state(point) != 'done']
  if (arguments.print or arguments.slurm) and not left:
    raise InputError(f'Nothing is left of {sweep.counted(found)}; the table: '
                     f'{place.with_suffix(".csv")}')
  if arguments.print:
    print('\n'.join(sweep.commands(left)))
  elif arguments.slurm:
    with files.atomic_write(pathlib.Path(arguments.slurm).expanduser()) as file:
      file.write(sweep.slurm_script(left))
    print(f'{len(left)} of {sweep.counted(found)} left: sbatch {arguments.slurm}')
  elif arguments.status:
    print(tables.markdown(tables.sweep(write())))
  else:
    failed = runner.run(found_here, slots=devices.divided(arguments.parallel), progress=write)
    print(tables.markdown(tables.sweep(write())))
    print(f'Table: {place.with_suffix(".csv")}, {place.with_suffix(".json")}')
    if failed:
      sys.exit(f'error: {len(failed)} of {sweep.counted(found)} failed: '
               + ', '.join(point.digest for point in failed))


if __name__ == '__main__':
  command_line.run(main, computes=False, config='File with get_config() and get_hyper(hyper).',
                   workdir='Folder of the sweep.')
