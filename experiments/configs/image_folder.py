"""Pretraining on a folder of image files, at any depth, of any size.

  python -m experiments.pretrain --config=experiments/configs/image_folder.py --workdir=DIR \
      --config.data.options.train=FOLDER

Images are unlabelled by default. If there is one subfolder per class,
--config.data.options.labels=folders adds the probe and kNN to the log. If the folder is divided
into train/ and val/, give --config.data.options.train=FOLDER/train
--config.data.options.validation=FOLDER/val. A bad file stops the run, and the error names it;
--config.data.unreadable=skip continues without it.

This config is a starting point, not a tuned recipe: ResNet-50 at 224 pixels, with the values of
the paper's 300 epochs and the learning rate for batch 512. No result is claimed for it; hardware
and time have not been measured.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config().unlock()
  config.data.update(dataset='image_folder', options=plugin_options('datasets', 'image_folder'),
                     pipeline='tf_data', virtual_shards=16)
  config.data.options.labels = 'none'
  config.train.update(epochs=300.0, batch_size=512, base_learning_rate=0.3, base_tau=0.99)
  config.train.optimizer_options.weight_decay = 1e-6
  return config.lock()
