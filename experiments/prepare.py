"""Copies a prepared TFDS set with smaller images, which are faster to read and decode.

  python -m experiments.prepare --input=DATA/imagenet2012/5.1.0 \\
      --output=SMALL/imagenet2012/5.1.0 [--short_side=256] [--quality=95]

Afterwards: --config.data.options.data_dir=SMALL. Crops of less than the whole image are cut
from fewer pixels than in the paper; docs/measurements/performance.md has the gain and the cost.
If interrupted, run the same command again to resume.
"""

import pathlib

from absl import flags

from experiments import command_line

flags.DEFINE_integer('short_side', 256, 'Maximum length of the shorter side in pixels.')
flags.DEFINE_integer('quality', 95, 'Quality of the JPEG files that are written.')
flags.DEFINE_string('image_key', 'image', 'The feature of the set that has the image.')


def main() -> None:
  # Imported here, because the line above silences TensorFlow, which it imports.
  from byol_jax.input_pipeline import prepare

  given = flags.FLAGS
  source, target = (pathlib.Path(path).expanduser() for path in (given.input, given.output))
  counts = prepare.shrink(
      source, target, short_side=given.short_side, quality=given.quality, image_key=given.image_key,
      progress=lambda line: print(line, flush=True))
  print(f'{counts["records"]} records written, {counts["shrunk"]} images shrunk, '
        f'{counts["bytes_before"]:,} bytes of images before and {counts["bytes_after"]:,} after')
  found = prepare.differences(source, target, image_key=given.image_key)
  print('Mean difference of a random view of 224 pixels from that of the original, of 255: '
        + '; '.join(f'{name} {value:.1f}' for name, value in found.items()))


if __name__ == '__main__':
  command_line.run(main, computes=False, input='Folder of the set, DATA/NAME/VERSION.',
                   output='Folder of the copy.')
