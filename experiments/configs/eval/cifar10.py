"""C.1, linear on cached features and kNN for an encoder of cifar10.py and the random encoder.

  python -m experiments.evaluate --config=experiments/configs/eval/cifar10.py \
      --checkpoint=DIR --workdir=DIR2

Hardware and expected numbers: configs/cifar10.py.
"""

import ml_collections

from experiments.configs.eval import default


def get_config() -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), 'linear,linear_features,knn')
  config.encoders = ('pretrained', 'random')
  return config.lock()
