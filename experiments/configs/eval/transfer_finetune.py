"""The paper's transfer by fine-tuning the encoder and a classifier (appendix D.3).

  python -m experiments.evaluate --config=experiments/configs/eval/transfer_finetune.py:cifar10 \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.download=True
  python -m experiments.evaluate --checkpoint=DIR --workdir=DIR2 \
      --config=experiments/configs/eval/transfer_finetune.py:cifar10,smoke

Words after the colon: a data set of eval/data_sets.py (none: the pretraining data), and smoke, a
trial of two grid points with a few steps each. The metric that chooses the best point is that of
the data set. Views have the same size as in pretraining. Repeat the command to continue after the
last finished point.

Hardware: the paper names none for this. The grid has 56 points of 20,000 steps at batch 256, and
the chosen point is trained once more: 1.14 million steps.
Expected for ResNet-50 after 1000 epochs of ImageNet: CIFAR-10 97.8 (random initialisation 95.9,
supervised 97.5; Table 3); published, not run here.
"""

import ml_collections

from experiments.configs.eval import data_sets, default


def get_config(words='') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), 'fine_tuned_transfer')
  metric, smoke = data_sets.choose(config, words)
  config.evaluators.fine_tuned_transfer.metric = metric
  if smoke:
    config.evaluators.fine_tuned_transfer.update(
        learning_rates=(0.01, 0.1), weight_decays=(0.0,), steps=10, batch_size=64)
  return config.lock()
