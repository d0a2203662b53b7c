"""Explains a step of the demonstration in numbers, and shows what happens without each part.

  python -m experiments.walkthrough --workdir=DIR [--output=docs/measurements/walkthrough.md]

Runs that already exist in DIR are reused: the main run, and the short runs without a part.
"""

from absl import flags

from experiments import command_line
from byol_jax import files
from experiments.configs import collapse, demo_paper
from experiments.studies import walkthrough

command_line.define_path('output', None, 'The text; by default walkthrough.md in the workdir.')


def main() -> None:
  arguments = flags.FLAGS
  home = files.local_path(arguments.workdir)
  output = arguments.output or home / 'walkthrough.md'
  print(walkthrough.make(home, output, demo_paper.get_config(), collapse))
  print(f'Written to {output}')


if __name__ == '__main__':
  command_line.run(main, workdir='Folder of the runs.')
