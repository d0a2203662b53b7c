"""Pretraining on unlabelled re-identification images: VeRi-776, VERI-Wild or your own lists.

  python -m experiments.pretrain --config=experiments/configs/vehicles.py:format=veri,root=VeRi \
      --workdir=DIR

After the colon, give format=veri or veri_wild with root=FOLDER, or format=csv or folders with
train=FILE or FOLDER (from a CSV file only the column path is read, not id and camera). The run
reads only the training images, without their identities. eval/retrieval.py evaluates the encoder.

This config is a starting point, not a tuned recipe: ResNet-50 at 224 pixels, the values of the
paper's 300 epochs, the learning rate for batch 512, and crops of at least a quarter of the image,
so that views keep the vehicle. No result is claimed for it; hardware and time have not been
measured.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import default


def get_config(text='') -> ml_collections.ConfigDict:
  given = default.arguments(text, format='veri', root='VeRi', train='')
  config = default.get_config().unlock()
  config.data.update(dataset='retrieval', options=plugin_options('datasets', 'retrieval'),
                     pipeline='tf_data', virtual_shards=16)
  own = given['format'] in ('csv', 'folders')
  config.data.options.update(format=given['format'], labels='none',
                             root=None if own else given['root'],
                             train=(given['train'] or None) if own else None)
  for view in (config.view1, config.view2):
    view.crop_area = (0.25, 1.0)
  config.train.update(epochs=300.0, batch_size=512, base_learning_rate=0.3, base_tau=0.99)
  config.train.optimizer_options.weight_decay = 1e-6
  return config.lock()
