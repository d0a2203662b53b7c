"""CIFAR-100 with the recipe and the arguments of cifar10.py.

  python -m experiments.pretrain --config=experiments/configs/cifar100.py --workdir=DIR \
      --config.data.options.download=True

Expected: 70.46 top-1, 91.96 top-5 for the online probe, ResNet-18, 1000 epochs (solo-learn
README; published, not run here; the best epoch on the test images). Hardware and time have not
been measured.
"""

import ml_collections

from experiments.configs import cifar10


def get_config(arguments='') -> ml_collections.ConfigDict:
  config = cifar10.get_config(arguments).unlock()
  config.data.options.name = 'cifar100'
  return config.lock()
