"""Imports checkpoints from other programs, and exports weights and functions for them.

  python -m experiments.convert from_deepmind --input=FILE.pkl --workdir=DIR
  python -m experiments.convert from_deepmind --input=FILE.pkl --scan    only list its contents
  python -m experiments.convert to_torch --checkpoint=DIR --output=FILE.safetensors [--step=N]
  python -m experiments.convert from_torch --input=FILE --workdir=DIR [--prefix=TEXT]
  python -m experiments.convert export --checkpoint=DIR --output=FILE.stablehlo [--step=N]
"""

from absl import flags

from experiments import command_line
from byol_jax.config import as_json
from byol_jax.convert import deepmind, export, from_torch, imported, to_torch
from byol_jax.errors import InputError
from experiments.configs import imagenet_r50

FLAGS = dict(from_deepmind=('input', 'workdir'), scan=('input',),
             to_torch=('checkpoint', 'output'), from_torch=('input', 'workdir'),
             export=('checkpoint', 'output'))

for name, text in (('input', 'File to read.'), ('workdir', 'New folder for the checkpoint.'),
                   ('checkpoint', 'Workdir of a pretraining run, or of a conversion.'),
                   ('output', 'File to write.')):
  command_line.define_path(name, None, text)
flags.DEFINE_integer('step', None, 'Step of the checkpoint; by default the newest valid one.')
flags.DEFINE_integer('image_size', 224, 'Side in pixels of the images for the encoder, if '
                     'the file does not say.', lower_bound=1,
                     upper_bound=imported.LARGEST_SIDE)
flags.DEFINE_string('prefix', None, 'Prefix of the encoder\'s names in a file for from_torch, such '
                    'as module.encoder_q. or teacher.backbone. ; not needed for a single ResNet.')
flags.DEFINE_bool('scan', False, 'Print what the file names and contains, and load nothing.')


def main(arguments: list[str]) -> None:
  given = flags.FLAGS
  if len(arguments) != 1 or arguments[0] not in FLAGS:
    raise InputError(f'Give one of {", ".join(FLAGS)}; see experiments/convert.py.')
  if given.scan and arguments[0] != 'from_deepmind':
    raise InputError('--scan only works with from_deepmind; other files are not programs.')
  kind = 'scan' if given.scan and arguments[0] == 'from_deepmind' else arguments[0]
  missing = [name for name in FLAGS[kind] if not given[name].value]
  if missing:
    raise InputError(f'{kind} needs --{missing[0]}.')
  paper = as_json(imagenet_r50.get_config())
  paper['data']['image_size'] = given.image_size
  if kind == 'scan':
    print(deepmind.scan(given.input))
  elif kind == 'from_deepmind':
    print(deepmind.convert(given.input, given.workdir, paper))
  elif kind == 'from_torch':
    print(from_torch.read(given.input, given.workdir, paper, given.prefix))
  elif kind == 'to_torch':
    print(to_torch.write(given.checkpoint, given.output, given.step))
  else:
    print(export.write(given.checkpoint, given.output, given.step))


if __name__ == '__main__':
  command_line.run(main, positional=True)
