"""The demonstration's table: the frozen encoder beside its three baselines.

  python -m experiments.evaluate --config=experiments/configs/eval/demo.py \
      --checkpoint=DIR --workdir=DIR2
"""

import ml_collections

from experiments.configs.eval import linear_features


def get_config() -> ml_collections.ConfigDict:
  config = linear_features.get_config().unlock()
  config.encoders = ('pretrained', 'random', 'pixels', 'supervised')
  config.evaluators.knn.k = 20  # as during the run; 200 is a quarter of a class here
  config.supervised.epochs = 4.0  # enough for nearly all images
  return config.lock()
