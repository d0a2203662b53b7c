"""CIFAR-10: ResNet-18 with the small stem, or a narrow ResNet-10 for two CPU cores.

  python -m experiments.pretrain --config=experiments/configs/cifar10.py --workdir=DIR \
      --config.data.options.download=True
  python -m experiments.pretrain --config=experiments/configs/cifar10.py:size=cpu --workdir=DIR \
      --config.data.options.download=True
  python -m experiments.evaluate --config=experiments/configs/eval/cifar10.py \
      --checkpoint=DIR --workdir=DIR2

Arguments: size=gpu (default) or size=cpu; epochs=1000 (30 for cpu).

size=gpu. Expected: 92.58 top-1 for the online probe after 1000 epochs (solo-learn README;
published, not run here; the best epoch on the test images). The optimizer (LARS with a clipped
rate), the views and the heads are those of its scripts/pretrain/cifar/byol.yaml.
size=cpu. Hardware: 2 CPU cores, about an hour (370 images/s if nothing else is running), and 12
minutes for the evaluation with 20 epochs of C.1.
Expected: linear on features 54.5 (random encoder 30.3), C.1 with 20 of its 80 epochs 51.0
(28.5), kNN 46.8 (30.5); one seed, not tuned. Source: measured here.

As usual for images of 32 pixels, there is no blur, and the stem downsamples less.
"""

import ml_collections

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from experiments.configs import default


def get_config(arguments='') -> ml_collections.ConfigDict:
  given = default.arguments(arguments, size='gpu', epochs=0)
  if given['size'] not in ('gpu', 'cpu'):
    raise InputError(f'size is {given["size"]!r}; it can be gpu or cpu.')
  config = default.get_config().unlock()
  config.data.update(dataset='tfds', options=plugin_options('datasets', 'tfds'), image_size=32,
                     center_share=1.0)  # evaluation sees the whole of these small images
  config.data.options.update(name='cifar10', held_out_images=5000, test_split='test')
  for view in (config.view1, config.view2):
    view.blur_probability = 0.0
  config.model.encoder_options.first_projection = False
  (_cpu if given['size'] == 'cpu' else _gpu)(config)
  if given['epochs']:
    config.train.epochs = float(given['epochs'])
  return config.lock()


def _gpu(config) -> None:
  config.model.encoder_options.update(depth=18, stem='small')
  config.train.update(epochs=1000.0, batch_size=256, base_learning_rate=1.0, base_tau=0.99)
  config.train.optimizer_options.update(weight_decay=1e-5, eta=0.02, clip=True)


def _cpu(config) -> None:
  """Few steps of a small network: crops keep more of the image; tau and the heads are smaller."""
  config.model.encoder_options.update(depth=10, width=0.25, stem='medium')
  config.model.update(projector=(512, 128), predictor=(512, 128))
  for view in (config.view1, config.view2):
    view.crop_area = (0.2, 1.0)
  config.train.update(epochs=30.0, batch_size=128, base_learning_rate=1.0, warmup_epochs=1.0,
                      base_tau=0.99)
  config.train.optimizer_options.update(weight_decay=1e-6, eta=1e-2)
  config.evals.every_epochs = 5.0
  config.checkpoint.every_epochs = 5.0
