"""Evaluates a frozen encoder on your own folders of images, one subfolder per class.

  python -m experiments.evaluate --config=experiments/configs/eval/image_folder.py \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.train=FOLDER \
      --config.data.options.test=FOLDER2

This runs the quick evaluations; `eval/image_folder.py:linear` is the paper's linear evaluation.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs.eval import default


def get_config(evaluators='linear_features,knn') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), evaluators)
  config.data.update(dataset='image_folder', options=plugin_options('datasets', 'image_folder'),
                     pipeline='tf_data')
  return config.lock()
