"""Linear top-1 and kNN of a frozen encoder on cached features, in seconds to minutes.

  python -m experiments.evaluate --config=experiments/configs/eval/linear_features.py \
      --checkpoint=DIR --workdir=DIR2

This is not the paper's linear evaluation (appendix C.1), which trains on augmented images; that
is eval/linear.py.
"""

import ml_collections

from experiments.configs.eval import default


def get_config() -> ml_collections.ConfigDict:
  return default.with_evaluators(default.get_config().unlock(), 'linear_features,knn').lock()
