"""Times the parts of a run on this machine.

  python -m experiments.benchmark {input,augment,step,dispatch,end_to_end,eval,retrieval} \\
      --config=CONFIG [--json] [--repeats=5] [--trace=DIR] [--config.train.batch_size=64]
  python -m experiments.benchmark profile --config=CONFIG --trace=DIR

CONFIG is one of experiments/configs. Prints a table, or with --json one line per case.
--trace writes a profile of one more repeat, for TensorBoard or https://ui.perfetto.dev.
`profile` records a profile of the training step and lists what took the time.
"""

import pathlib

from absl import flags

from experiments import command_line
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from experiments.studies import benchmark

flags.DEFINE_bool('json', False, 'One JSON object per case and line.')
flags.DEFINE_integer('repeats', 5, 'Timed runs of each case, after one untimed run.',
                     lower_bound=1)
command_line.define_path('trace', None, 'Folder for a profile.')


def main(arguments: list[str]) -> None:
  given = flags.FLAGS
  if arguments == ['profile']:
    # Imported here, like benchmark.run does with the other parts.
    from experiments.studies.benchmark import profile

    if not given.trace:
      raise InputError('Give the folder for the profile: --trace=DIR.')
    parallel.print_once(profile.as_table(profile.costs(given.config, pathlib.Path(given.trace))))
    return
  if len(arguments) != 1 or arguments[0] not in benchmark.PARTS:
    raise InputError(f'Give one part to time: {", ".join(benchmark.PARTS)} or profile.')
  results = benchmark.run(arguments[0], given.config, repeats=given.repeats, trace=given.trace)
  parallel.print_once(benchmark.as_json(results) if given.json else benchmark.as_table(results))


if __name__ == '__main__':
  command_line.run(main, positional=True, job=True, config='Config of the run to time.')
