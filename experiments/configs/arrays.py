"""Pretraining on your own images, held in memory as NumPy files.

  python -m experiments.pretrain --config=experiments/configs/arrays.py --workdir=DIR \
      --config.data.options.images=FILE.npz --config.data.image_size=32

FILE.npz contains `images`, uint8 [N, H, W, 3], and optionally `labels`, integers [N];
--config.data.options.labels=none ignores the labels.

This config is a starting point, not a tuned recipe: ResNet-18 with the small stem, for images of
about 32 pixels, with the learning rate and tau of the paper's 300 epochs. No result is claimed
for it; hardware and time have not been measured.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config().unlock()
  config.data.dataset = 'arrays'
  config.data.options = plugin_options('datasets', 'arrays')
  config.data.image_size = 32
  config.data.center_share = 1.0  # evaluation sees the whole of these small images
  config.model.encoder_options.update(depth=18, stem='small', first_projection=False)
  config.train.update(epochs=300.0, batch_size=256, base_learning_rate=0.3, base_tau=0.99)
  config.train.optimizer_options.weight_decay = 1e-6
  return config.lock()
