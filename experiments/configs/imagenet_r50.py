"""The paper's run: ResNets on ImageNet, batch 4096.

  python -m experiments.pretrain --config=experiments/configs/imagenet_r50.py:epochs=1000 \
      --workdir=DIR [--config.data.options.data_dir=DATA]
  python -m experiments.evaluate --config=experiments/configs/eval/linear.py \
      --checkpoint=DIR --workdir=DIR2

Arguments: epochs=40|100|300|1000, depth=50 (18 to 200), width=1.0 (up to 4), for example
`:epochs=300,depth=101,width=2.0`. Learning rate, weight decay and tau depend on the number of
epochs (300 and 1000: sections 5 and 3.3; 40 and 100: only in the reference).

Hardware and time: 512 TPU v3 cores, about 8 hours for 1000 epochs (section 3.3).
Expected, all published and none run here: linear top-1 / top-5 of ResNet-50 1x
  1000 epochs  74.3 / 91.6 (Table 1)
   300 epochs  72.5 / 90.8 (section 5)
   100 epochs  66.5 top-1 (Chen and He 2020, Table 4; their implementation)
    40 epochs  about 61.5 top-1 (a user of the reference implementation)
1000 epochs, other sizes: 50 2x 77.4 / 93.6, 50 4x 78.6 / 94.2, 200 2x 79.6 / 94.8.

Preparation: download the two ImageNet archives by hand
(https://www.tensorflow.org/datasets/catalog/imagenet2012) into DATA/downloads/manual, then run
  python -c "import tensorflow_datasets as tfds; \
      tfds.builder('imagenet2012', data_dir='DATA').download_and_prepare()"
"""

import ml_collections

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from experiments.configs import default

# epochs: (base_learning_rate, weight_decay, base_tau)
PRESETS = {40: (0.45, 1e-6, 0.97), 100: (0.45, 1e-6, 0.99), 300: (0.3, 1e-6, 0.99),
           1000: (0.2, 1.5e-6, 0.996)}


def get_config(arguments='') -> ml_collections.ConfigDict:
  given = default.arguments(arguments, epochs=1000, depth=50, width=1.0)
  if given['epochs'] not in PRESETS:
    raise InputError(f'No preset for {given["epochs"]} epochs; there are '
                     f'{", ".join(map(str, PRESETS))}. Other numbers: --config.train.epochs=...')
  learning_rate, weight_decay, tau = PRESETS[given['epochs']]
  config = default.get_config().unlock()
  config.data.update(dataset='tfds', options=plugin_options('datasets', 'tfds'), pipeline='tf_data',
                     virtual_shards=64)
  config.model.encoder_options.update(depth=given['depth'], width=given['width'])
  config.train.update(epochs=float(given['epochs']), base_learning_rate=learning_rate, base_tau=tau)
  config.train.optimizer_options.weight_decay = weight_decay
  # kNN would encode 1.3 million images each time; the probe in the log costs nothing extra.
  config.evals.every_epochs = 0.0
  config.checkpoint.every_epochs = 5.0
  return config.lock()
