"""ResNet-18 on the 100,000 unlabelled images of STL-10, 96 pixels.

  python -m experiments.pretrain --config=experiments/configs/stl10.py --workdir=DIR \
      --config.data.options.folder=stl10_binary
  python -m experiments.evaluate --config=experiments/configs/eval/stl10.py \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.folder=stl10_binary

The files are those of https://cs.stanford.edu/~acoates/stl10, unpacked. The TFDS version lacks
the folds. Without labels the log has neither probe nor kNN.

This config is a starting point, with the learning rate, weight decay and tau of the paper's 300
epochs. No result is claimed for it; hardware and time have not been measured. Others report 70.1
linear in a smaller setting (ResNet-18, batch 64, 80 epochs, SGD; README of sthalles/PyTorch-BYOL).
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config().unlock()
  config.data.update(dataset='stl10', options=plugin_options('datasets', 'stl10'), image_size=96)
  config.model.encoder_options.depth = 18
  config.train.update(epochs=300.0, batch_size=512, base_learning_rate=0.3, base_tau=0.99)
  config.train.optimizer_options.weight_decay = 1e-6
  return config.lock()
