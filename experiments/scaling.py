"""Writes what the paper's runs would need on 8, 64 and 512 accelerators.

  python -m experiments.scaling [--output=docs/measurements/scaling.md]
  python -m experiments.scaling --measure --data_dir=DATA
  JAX_PLATFORMS=cpu python -m experiments.scaling --compile=v3:16x16 --batch_per_core=8 \\
      [--depth=50] [--width=1.0] [--dtype=float32]

Results that cannot be recomputed here are saved in `scaling.json` beside the page. --measure
times the input pipeline on the TFDS set imagenet2012 in DATA; --compile compiles with libtpu
(`pip install -e .[tpu]`) for a TPU topology that does not need to be attached.
"""

import pathlib

from absl import flags

from experiments import command_line
from byol_jax.errors import InputError
from experiments.configs import imagenet_r50
from experiments.studies.scaling import compiler, document, record

command_line.define_path('output', 'docs/measurements/scaling.md', 'The page.')
flags.DEFINE_bool('measure', False, 'Time the input pipeline on this machine.')
command_line.define_path('data_dir', None, 'Folder of the prepared TFDS sets, for --measure.')
flags.DEFINE_string('compile', None, 'The TPU topology to compile the step for.')
flags.DEFINE_integer('batch_per_core', 8, 'Images per core, for --compile.')
flags.DEFINE_integer('depth', 50, 'Depth of the ResNet, for --compile.')
flags.DEFINE_float('width', 1.0, 'Width of the ResNet, for --compile.')
flags.DEFINE_string('dtype', 'float32', 'Compute dtype, for --compile.')
NETWORKS = dict([('ResNet-50 1x', 'depth=50,width=1.0'), ('ResNet-200 2x', 'depth=200,width=2.0')])


def main() -> None:
  given = flags.FLAGS
  output = pathlib.Path(given.output)
  results = record.read(output.parent)
  if given.measure:
    config = imagenet_r50.get_config()
    config.data.options.data_dir = given.data_dir
    policies = [config.view1.to_dict(), config.view2.to_dict()]
    results = record.with_input(results, config.data, policies, config.train.batch_size)
  if given.compile:
    config = imagenet_r50.get_config(f'depth={given.depth},width={given.width}')
    config.model.compute_dtype = given.dtype
    results = record.with_compiled(results, compiler.costs(
        config, given.compile, given.batch_per_core, document.PAPER.images, document.CLASSES))
  if not results['compiled']:
    raise InputError(f'{output.parent / record.FILE} has no compilation results; copy '
                     f'docs/measurements/{record.FILE} there, or make some with --compile.')
  record.write(output.parent, results)
  document.write(output, networks(), results)
  print(f'Written to {output}')


def networks():
  """The networks of the page, by name."""
  return {name: imagenet_r50.get_config(text) for name, text in NETWORKS.items()}


if __name__ == '__main__':
  command_line.run(main)
