"""The paper's linear transfer: logistic regression on frozen features (appendix D.2).

  python -m experiments.evaluate --config=experiments/configs/eval/transfer_linear.py:food101 \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.data_dir=DATA

Words after the colon: a data set of eval/data_sets.py (none: the pretraining data), and smoke, a
trial with few images and penalties. The metric is that of the data set. Views have the same size
as in pretraining.

Hardware: extracting features of 45,000 images of 32 pixels and fitting all 45 penalties took
minutes on 2 CPU cores (docs/measurements/evaluations.md).
Expected for ResNet-50 after 1000 epochs of ImageNet: Table 3, in eval/data_sets.py (CIFAR-10
91.3, Food-101 75.3, ...); published, not run here.
"""

import ml_collections

from experiments.configs.eval import data_sets, default


def get_config(words='') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), 'linear_transfer')
  metric, smoke = data_sets.choose(config, words)
  config.evaluators.linear_transfer.metric = metric
  if smoke:
    config.evaluators.linear_transfer.l2_values = (1e-2, 1.0, 1e2)
  return config.lock()
