"""The demonstration's table: the frozen encoder and its three baselines.

  python -m experiments.evaluate --config=experiments/configs/eval/demo.py \
      --checkpoint=DIR --workdir=DIR2

To evaluate only some of the four encoders, name them after a colon: `demo.py:pretrained,random`.
"""

import ml_collections

from experiments.configs.eval import linear_features


def get_config(encoders='pretrained,random,pixels,supervised') -> ml_collections.ConfigDict:
  config = linear_features.get_config().unlock()
  config.encoders = tuple(encoders.split(','))
  config.evaluators.knn.k = 20  # as during the run; 200 would be a quarter of a class here
  config.supervised.epochs = 2.0  # enough to classify nearly all images correctly
  # Raw pixels have 3,072 dimensions, so each of these takes seconds.
  config.evaluators.linear_features.l2_values = tuple(10.0 ** power for power in range(-5, 1))
  return config.lock()
