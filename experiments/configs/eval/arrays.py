"""Linear top-1 and kNN of a frozen encoder on your own labelled images.

  python -m experiments.evaluate --config=experiments/configs/eval/arrays.py \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.images=TRAIN.npz \
      --config.data.options.test_images=TEST.npz

The files are those of configs/arrays.py; the encoder may have been pretrained on
other images, with other classes or without labels.
"""

import ml_collections

from experiments.configs import arrays
from experiments.configs.eval import linear_features


def get_config() -> ml_collections.ConfigDict:
  config = linear_features.get_config().unlock()
  config.data.dataset = 'arrays'
  config.data.options = arrays.get_config().data.options
  return config.lock()
