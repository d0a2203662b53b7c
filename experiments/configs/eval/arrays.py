"""Evaluates a frozen encoder on your own labelled images, held in memory as NumPy files.

  python -m experiments.evaluate --config=experiments/configs/eval/arrays.py \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.images=TRAIN.npz \
      --config.data.options.test_images=TEST.npz

The files have the format of configs/arrays.py. The encoder may have been pretrained on other
images, with other classes or without labels. This runs the quick evaluations;
`eval/arrays.py:linear` is the paper's linear evaluation.
"""

import ml_collections

from experiments.configs import arrays
from experiments.configs.eval import default


def get_config(evaluators='linear_features,knn') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), evaluators)
  config.data.update(dataset='arrays', options=arrays.get_config().data.options,
                     pipeline='memory')
  return config.lock()
