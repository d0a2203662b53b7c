"""Every key of an evaluation, defined once, with its unit, source and range.

As in configs/default.py, the text after the last semicolon of a key's comment says which values
it accepts.
"""

import ml_collections

from byol_jax import plugins
from byol_jax.augment.views import CROP_OPTIONS
from byol_jax.config import plugin_options
from byol_jax.errors import InputError


def get_config() -> ml_collections.ConfigDict:
  """All keys, locked."""
  return ml_collections.ConfigDict(dict(
      seed=0,  # of the random and the supervised encoder; a whole number of 0 or more
      # Images per step over all devices in feature extraction; a whole number of 1 or more
      batch_size=256,
      # Encoders to evaluate. 'random': the same encoder at initialisation, 'pixels': the image
      # itself, 'supervised': the same encoder trained with labels;
      # one or more of 'pretrained', 'random', 'pixels' or 'supervised', each once
      encoders=('pretrained',),
      # The same keys as in the pretraining's `data`; '' or 0 takes the value from there.
      data=dict(
          # '': the data that the encoder was pretrained on;
          # a module of byol_jax/datasets or a dotted path or ''
          dataset='',
          options=dict(),  # its OPTIONS
          pipeline='',  # 'memory', 'device', 'tf_data' or ''
          virtual_shards=0,  # a whole number of 0 or more
          workers=0,  # a whole number of 0 or more
          unreadable='',  # 'stop', 'skip' or ''
          image_size=0,  # pixels, side of a view; a whole number in [0, 65535]
          center_share=0.0,  # a number in [0, 1]
          center_order='',  # 'resize_first', 'crop_first' or ''
          # Where the pretraining data are now, if they have moved, as options of their data
          # set: 'train=FOLDER,test=FOLDER2'. Only used if dataset is ''; a text or ''
          locations='',
          # With dataset '', if files have changed since the pretraining: 'stop' and name them,
          # or 'accept' and evaluate with them; 'stop' or 'accept'
          changed_files='stop',
      ),
      # Modules of byol_jax/evaluators, or dotted paths, with the options of their fit functions.
      evaluators=ml_collections.ConfigDict(dict(), allow_dotted_keys=True),
      supervised=supervised(),
  )).lock()


def with_evaluators(config: ml_collections.ConfigDict, names: str) -> ml_collections.ConfigDict:
  """Adds the evaluators named after the colon of a config: 'linear', 'linear_features,knn'."""
  known = plugins.known('evaluators')
  for name in names.split(','):
    if name not in known:
      raise InputError(f'{name!r} after the colon of --config is no evaluator; there are '
                       f'{", ".join(known)}, or several with commas.')
    config.evaluators[name] = plugin_options('evaluators', name)
  return config


def supervised() -> ml_collections.ConfigDict:
  """The supervised baseline; augmentation and optimizer are the paper's (appendix C.1)."""
  return ml_collections.ConfigDict(dict(
      epochs=10.0,  # passes over the training images; a number above 0
      batch_size=64,  # images per step over all devices; a whole number of 1 or more
      base_learning_rate=0.1,  # per 256 images, falls to 0 along a cosine; a number above 0
      momentum=0.9,  # Nesterov; a number in [0, 1)
      weight_decay=1e-4,  # l2; a number in [0, 100]
      view=dict(CROP_OPTIONS, crop_area=(0.5, 1.0)),
  ))
