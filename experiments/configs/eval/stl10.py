"""Evaluates a frozen encoder on STL-10's labelled images: all 5,000, or one of the ten folds.

  python -m experiments.evaluate --config=experiments/configs/eval/stl10.py \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.folder=stl10_binary

To choose a fold, set --config.data.options.fold to 0 ... 9. STL-10's own protocol trains on each
fold and reports the mean of the ten test accuracies. This runs the quick evaluations;
`eval/stl10.py:linear` is the paper's linear evaluation.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs.eval import default


def get_config(evaluators='linear_features,knn') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), evaluators)
  config.data.update(dataset='stl10', options=plugin_options('datasets', 'stl10'),
                     pipeline='memory')
  config.data.options.unlabelled = False
  return config.lock()
