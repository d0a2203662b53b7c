"""Times the parts of a run on this machine.

  python -m experiments.benchmark {input,augment,step,end_to_end,eval} --config=CONFIG \
      [--json] [--repeats=5] [--trace=DIR] [--config.train.batch_size=64]

CONFIG is one of experiments/configs. Prints a table, or with --json one line per case.
--trace writes a profile of one more repeat, for TensorBoard or https://ui.perfetto.dev.
"""

from absl import flags

from byol_jax import benchmark
from byol_jax.errors import InputError
from experiments import command_line

flags.DEFINE_bool('json', False, 'One JSON object per case and line.')
flags.DEFINE_integer('repeats', 5, 'Timed runs of each case, after one that is not.',
                     lower_bound=1)
flags.DEFINE_string('trace', None, 'Folder for a profile.')


def main(arguments: list[str]) -> None:
  given = flags.FLAGS
  if len(arguments) != 1 or arguments[0] not in benchmark.PARTS:
    raise InputError(f'Give one part to time: {", ".join(benchmark.PARTS)}.')
  results = benchmark.run(arguments[0], given.config, repeats=given.repeats, trace=given.trace)
  print(benchmark.as_json(results) if given.json else benchmark.as_table(results))


if __name__ == '__main__':
  command_line.run(main, positional=True, config='The run of which a part is timed.')
