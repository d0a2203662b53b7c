"""Two evaluations of frozen features that take seconds: kNN over a grid, and few shots.

  python -m experiments.evaluate --config=experiments/configs/eval/cheap.py:cifar10 \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.data_dir=DATA

Words after the colon: a data set of eval/data_sets.py (none: the pretraining data), and smoke, a
trial with few images. k and temperature, and the penalty of the ridge regression, are chosen on
held-out images. The data set must have one label per image.

Hardware: seconds once the features are extracted. The paper has neither evaluation.
"""

import ml_collections

from experiments.configs.eval import data_sets, default


def get_config(words='') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), 'knn_grid,few_shot')
  _, smoke = data_sets.choose(config, words)
  if smoke:
    config.evaluators.few_shot.update(shots=(1,), draws=2)
  return config.lock()
