"""Takes a step of the demonstration apart, and shows what happens without each part.

  python -m experiments.walkthrough --workdir=DIR [--output=docs/walkthrough.md]

What is there already in DIR is used: the run, and the short runs without a part.
"""

import pathlib

from absl import flags
import ml_collections

from byol_jax import checkpoint, devices, sweep, train, walkthrough
from byol_jax.errors import InputError
from experiments import command_line
from experiments.configs import collapse, demo

flags.DEFINE_string('output', None, 'The text; walkthrough.md in the workdir where not given.')
TENSOR = ('projector/linear', 'w')


def main() -> None:
  arguments = flags.FLAGS
  home = pathlib.Path(arguments.workdir).expanduser().absolute()
  write(home, arguments.output or home / 'walkthrough.md', demo.get_config(), collapse)


def write(home: pathlib.Path, output, config: ml_collections.ConfigDict, variants) -> None:
  """Runs what is missing and writes the text.

  Args:
    home: folder of the runs.
    output: the file.
    config: of the run that is taken apart.
    variants: a sweep's config module with VARIANTS.
  """
  train.pretrain(config, home / 'demo')
  points = sweep.points(variants.get_config, variants.get_hyper, config_path=variants.__file__,
                        overrides={}, workdir=home / 'collapse')
  failed = sweep.run(points, slots=devices.divided(1), progress=lambda: None)
  if failed:
    raise InputError(f'{len(failed)} of the short runs failed; see {failed[0].folder}.')
  step = checkpoint.steps(home / 'demo')[0]
  found = walkthrough.trace(config, home / 'demo', step)
  table = walkthrough.variants(
      points, {name: paper for name, (_, paper) in variants.VARIANTS.items()})
  print(walkthrough.write(output, found, walkthrough.numbers(found, config, TENSOR), table))
  print(f'Written to {output}')


if __name__ == '__main__':
  command_line.run(main, workdir='Folder of the runs.')
