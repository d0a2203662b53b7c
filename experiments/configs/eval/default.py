"""Every key of an evaluation, once."""

import ml_collections

from byol_jax.errors import InputError


def get_config() -> ml_collections.ConfigDict:
  """All keys, locked."""
  return ml_collections.ConfigDict(dict(
      seed=0,  # of the random and the supervised encoder
      batch_size=256,  # images per step over all devices when features are extracted
      # What is judged: 'pretrained', 'random' (the same encoder at initialisation),
      # 'pixels' (the image itself), 'supervised' (the same encoder trained with labels).
      encoders=('pretrained',),
      # A module of byol_jax/datasets and the options of its load function. '' takes
      # the data that the encoder was pretrained on. The keys below it are those of the
      # pretraining's `data`; '' or 0 takes them from there.
      data=dict(dataset='', options=dict(), pipeline='', virtual_shards=0, workers=0,
                unreadable='', image_size=0, center_share=0.0, center_order=''),
      # Modules of byol_jax/evaluators and the options of their fit functions.
      evaluators=dict(),
      supervised=supervised(),
  )).lock()


def with_evaluators(config: ml_collections.ConfigDict, names: str) -> ml_collections.ConfigDict:
  """Adds the evaluators that the argument of a config names: 'linear', 'linear_features,knn'."""
  known = dict(linear=linear, linear_features=linear_features, knn=knn)
  for name in names.split(','):
    if name not in known:
      raise InputError(f'{name!r} after the colon of --config is no evaluator; there are '
                       f'{", ".join(known)}, or several with commas.')
    config.evaluators[name] = known[name]()
  return config


def supervised() -> ml_collections.ConfigDict:
  """The supervised run; the augmentation and optimizer are the paper's (appendix C.1)."""
  return ml_collections.ConfigDict(dict(
      epochs=10.0,  # passes over the training images
      batch_size=64,  # images per step over all devices
      base_learning_rate=0.1,  # per 256 images, then a cosine to 0
      momentum=0.9,  # Nesterov
      weight_decay=1e-4,  # l2
      view=dict(crop_area=(0.5, 1.0), crop_aspect=(3 / 4, 4 / 3), flip_probability=0.5),
  ))


def linear() -> ml_collections.ConfigDict:
  """The paper's linear evaluation (appendix C.1); details: evaluators/linear.py."""
  return ml_collections.ConfigDict(dict(
      learning_rates=(0.4, 0.3, 0.2, 0.1, 0.05),  # per 256 images, one is chosen (C.1)
      epochs=80.0,  # passes over the training images (C.1)
      batch_size=1024,  # images per step over all devices (C.1)
      momentum=0.9,  # Nesterov (C.1)
      view=dict(crop_area=(0.08, 1.0), crop_aspect=(3 / 4, 4 / 3), flip_probability=0.5),
      seed=0,  # of the order of the images and the augmentation
      refit=False,  # once more on training and held-out images together; not in the paper
  ))


def linear_features() -> ml_collections.ConfigDict:
  """Logistic regression on cached features; l2 is chosen on the validation split."""
  return ml_collections.ConfigDict(dict(
      l2_values=tuple(10.0 ** power for power in range(-7, 2)),  # times |W|^2 / 2
      tolerance=1e-7,  # about twice the relative distance from the minimum
      max_iterations=500,  # of L-BFGS for each of them
  ))


def knn() -> ml_collections.ConfigDict:
  """Weighted nearest neighbours (Wu et al. 2018, section 3.4)."""
  return ml_collections.ConfigDict(dict(k=200, temperature=0.07))
