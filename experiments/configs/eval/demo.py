"""The demonstration's table: the frozen encoder beside its three baselines.

  python -m experiments.evaluate --config=experiments/configs/eval/demo.py \
      --checkpoint=DIR --workdir=DIR2
"""

import ml_collections

from experiments.configs.eval import linear_features


def get_config() -> ml_collections.ConfigDict:
  config = linear_features.get_config().unlock()
  config.encoders = ('pretrained', 'random', 'pixels', 'supervised')
  return config.lock()
