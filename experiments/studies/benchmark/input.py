"""The input pipeline alone, up to the batches on the host."""

from collections.abc import Iterator
from typing import Any

import jax
import ml_collections

from byol_jax.augment.views import READY
from byol_jax.config import plain
from byol_jax.input_pipeline import loading
from experiments.studies.benchmark import timing

# The number of images in one timed run.
IMAGES = 512
# The number of batches that are ready when a run starts; none of them may count.
AHEAD = 4


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """The pipeline; with tf_data also its parts and the work of the published pipeline.

  `decode` is the bound of any pipeline that decodes each image once.
  """
  loader = loading.load(plain(config.data), 'train', purpose='benchmark', workdir=workdir)
  policies, batch_size = (config.view1.to_dict(), config.view2.to_dict()), config.train.batch_size
  batches = loader.train_batches(policies, seed=config.seed, batch_size=batch_size, first_step=0,
                                 last_step=10 ** 9)
  parts = []
  # The parts are those of images that tf.data reads from disk.
  if loader.data.evaluation_form is READY:
    # Imported here: the memory path must run where TensorFlow is not installed.
    from experiments.studies.benchmark import tf_parts

    shards = loading.shards(config.data)
    parts = [_case(part, tf_parts.batches(
        part, loader.data, shards, policies=policies, image_size=config.data.image_size,
        resize=config.data.resize, workers=config.data.workers, batch_size=batch_size), batch_size,
                   bound='' if part == 'decode' else 'decode')
             for part in tf_parts.PARTS
             if part != 'published' or tf_parts.all_jpeg(loader.data, shards)]
  return [*parts, _case('pipeline', batches, batch_size, bound='decode' if parts else '')]


def _case(name: str, batches: Iterator[Any], batch_size: int, bound: str) -> timing.Case:
  count = -(-IMAGES // batch_size)

  def take(number):
    for _ in range(number):
      jax.block_until_ready(next(batches))

  def run():
    take(count)
    return float(count * batch_size)

  return timing.Case(name, run, settle=lambda: take(AHEAD), bound=bound)
