"""Writes one self-contained HTML page about a run, several runs or a sweep.

  python -m experiments.report DIR [DIR ...] [--output=FILE.html] [--images=1000] [--pictured=3]
"""

import pathlib

from absl import flags

from experiments import command_line
from byol_jax.config import as_json
from byol_jax.report import page, runs
from experiments.configs import imagenet_r50

command_line.define_path('output', None, 'The page; default: report.html in a single DIR, or here.')
flags.DEFINE_integer('images', 1000, 'Held-out images encoded for neighbours and map; 0: none.',
                     lower_bound=0)
flags.DEFINE_integer('pictured', 3, 'Maximum number of runs with neighbours and a map.',
                     lower_bound=0)


def main(folders: list[str]) -> None:
  arguments = flags.FLAGS
  found = runs.read(folders)
  home = pathlib.Path(folders[0]) if len(folders) == 1 else pathlib.Path()
  written = page.write(
      found, arguments.output or home / 'report.html', images=arguments.images,
      pictured=arguments.pictured, paper=as_json(imagenet_r50.get_config()))
  print(f'Report of {len(found)} run{"s" if len(found) > 1 else ""}: {written}')


if __name__ == '__main__':
  command_line.run(main, positional=True)
