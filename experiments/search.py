"""Finds the images of an index that are nearest to a query image.

  python -m experiments.extract --checkpoint=DIR --images=FOLDER --output=FILE.npz
  python -m experiments.search --checkpoint=DIR --index=FILE.npz --query=IMAGE [--count=10]

The first command makes the index. Prints cosine similarities and names, nearest first.
"""

from absl import flags

from experiments import command_line
from byol_jax.embeddings import search

flags.DEFINE_integer('count', 10, 'Number of images to find.', lower_bound=1)


def main() -> None:
  given = flags.FLAGS
  hits = search.search(given.checkpoint, given.index, given.query, count=given.count)
  for place, hit in enumerate(hits, 1):
    print(f'{place:4d}  {hit.similarity:.4f}  {hit.name}')


if __name__ == '__main__':
  command_line.run(main, checkpoint='Workdir of the run whose encoder made the index.',
                   index='File of experiments.extract (.npz).', query='Image file.')
