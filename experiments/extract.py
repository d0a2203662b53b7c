"""Writes the embeddings of a folder of images to one .npz: names, embeddings, skipped files.

  python -m experiments.extract --checkpoint=DIR --images=FOLDER --output=FILE.npz
"""

import itertools

from absl import flags

from experiments import command_line
from byol_jax.embeddings import extract

flags.DEFINE_integer('step', None, 'Step of the checkpoint; by default the newest valid one.')
flags.DEFINE_integer('batch_size', 64, 'Images encoded at once.', lower_bound=1,
                     # At 224 pixels these images alone take about 40 GB as float32.
                     upper_bound=65536)

# The number of unreadable images to print; the file lists all of them.
NAMED = 20


def main() -> None:
  given = flags.FLAGS
  done = extract.extract(given.checkpoint, given.images, given.output, step=given.step,
                         batch_size=given.batch_size)
  for name, reason in itertools.islice(done.unreadable.items(), NAMED):
    print(f'left out: {name} cannot be read as an image: {reason}')
  print(f'{_images(done.embedded)}, embeddings of {done.size} numbers: {done.output}\n'
        f'{_images(len(done.unreadable))} could not be read')
  if done.left_out:
    print(done.left_out)


def _images(count: int) -> str:
  return f'{count} image{"s" * (count != 1)}'


if __name__ == '__main__':
  command_line.run(main, checkpoint='Workdir of a pretraining run, or of a conversion.',
                   images='Folder of image files.', output='File to write (.npz).')
