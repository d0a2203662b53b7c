"""Linear top-1 and kNN of a frozen encoder on cached features, in seconds to minutes.

  python -m experiments.evaluate --config=experiments/configs/eval/linear_features.py \
      --checkpoint=DIR --workdir=DIR2

Not the paper's linear evaluation (appendix C.1), which trains on augmented images.
"""

import ml_collections

from experiments.configs.eval import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config().unlock()
  config.evaluators.linear_features = default.linear_features()
  config.evaluators.knn = default.knn()
  return config.lock()
