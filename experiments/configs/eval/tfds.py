"""Evaluates a frozen encoder on any labelled data set of TensorFlow Datasets.

  python -m experiments.evaluate --config=experiments/configs/eval/tfds.py \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.name=NAME \
      --config.data.options.test_split=test

This runs the quick evaluations; `eval/tfds.py:linear` is the paper's linear evaluation.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs.eval import default


def get_config(evaluators='linear_features,knn') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), evaluators)
  config.data.update(dataset='tfds', options=plugin_options('datasets', 'tfds'), pipeline='tf_data')
  return config.lock()
