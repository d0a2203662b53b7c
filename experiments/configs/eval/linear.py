"""The paper's linear evaluation of a frozen encoder (appendix C.1).

  python -m experiments.evaluate --config=experiments/configs/eval/linear.py \
      --checkpoint=DIR --workdir=DIR2

This uses the pretraining data. For other data, put `:linear` after the config of that data
(`eval/tfds.py:linear`). Expected on ImageNet: 74.3 top-1, 91.6 top-5 for ResNet-50 after 1000
epochs (Table 1; published, not run here).
"""

import ml_collections

from experiments.configs.eval import default


def get_config() -> ml_collections.ConfigDict:
  return default.with_evaluators(default.get_config().unlock(), 'linear').lock()
