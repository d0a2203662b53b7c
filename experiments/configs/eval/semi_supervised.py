"""The paper's semi-supervised evaluation: fine-tunes encoder and classifier (appendix C.1).

  python -m experiments.evaluate --config=experiments/configs/eval/semi_supervised.py \
      --checkpoint=DIR --workdir=DIR2
  python -m experiments.evaluate --checkpoint=DIR --workdir=DIR2 \
      --config=experiments/configs/eval/semi_supervised.py:cifar10,smoke

Words after the colon: a data set of eval/data_sets.py (none: the pretraining data), and smoke, a
trial of two grid points with a few steps each. ImageNet's published subsets are imagenet_1pct and
imagenet_10pct. For another TFDS data set, --config.data.options.subset_share=0.01 draws a
class-balanced subset. Repeat the command to continue after the last finished point.

Hardware: the paper names none for this. Training uses batches of 1024 images of 224 pixels, and
the grid makes 400 passes over the training images.
Expected on ImageNet for ResNet-50 after 1000 epochs, top-1 and top-5: 53.2 and 78.4 with 1 % of
the labels, 68.8 and 89.0 with 10 % (Table 2), 77.7 and 93.9 with all (Table 8); published, not
run here. The paper has no result for CIFAR-10.
"""

import ml_collections

from experiments.configs.eval import data_sets, default


def get_config(words='') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), 'semi_supervised')
  _, smoke = data_sets.choose(config, words)
  if smoke:
    config.evaluators.semi_supervised.update(
        learning_rates=(0.01, 0.1), epochs=(30.0,), batch_size=64, max_steps=10)
  return config.lock()
