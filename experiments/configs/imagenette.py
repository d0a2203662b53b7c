"""ResNet-18 on Imagenette, 128 pixels: the reference's small example.

  python -m experiments.pretrain --config=experiments/configs/imagenette.py --workdir=DIR \
      --config.data.options.download=True
  python -m experiments.evaluate --config=experiments/configs/eval/linear_features.py \
      --checkpoint=DIR --workdir=DIR2

Hardware and time: about 4 hours on one V100 (reference README, for the reference code).
Expected: about 92.3 top-1 for the online probe, without a tuned recipe (reference README;
published, not run here). It was measured on the data set's public validation images, which are
our test split. A tenth of the 9,469 training images, 947, is held out.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config().unlock()
  config.data.update(dataset='tfds', options=plugin_options('datasets', 'tfds'), pipeline='tf_data',
                     image_size=128, virtual_shards=16)
  config.data.options.name = 'imagenette/160px-v2'
  config.model.encoder_options.depth = 18
  config.train.update(batch_size=256, base_learning_rate=2.0)
  config.train.optimizer_options.weight_decay = 1e-6
  config.evals.every_epochs = 20.0
  config.checkpoint.every_epochs = 20.0
  return config.lock()
