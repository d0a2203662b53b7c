"""Every key of an evaluation, once."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """All keys, locked."""
  return ml_collections.ConfigDict(dict(
      seed=0,  # of the random and the supervised encoder
      batch_size=256,  # images per step over all devices when features are extracted
      # What is judged: 'pretrained', 'random' (the same encoder at initialisation),
      # 'pixels' (the image itself), 'supervised' (the same encoder trained with labels).
      encoders=('pretrained',),
      # A module of byol_jax/datasets and the options of its load function. '' takes
      # the data that the encoder was pretrained on.
      data=dict(dataset='', options=dict()),
      # Modules of byol_jax/evaluators and the options of their fit functions.
      evaluators=dict(),
      supervised=supervised(),
  )).lock()


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


def linear_features() -> ml_collections.ConfigDict:
  """Logistic regression on cached features; l2 is chosen on the validation split."""
  return ml_collections.ConfigDict(dict(
      l2_values=tuple(10.0 ** power for power in range(-7, 2)),  # times |W|^2 / 2
      tolerance=1e-5,  # largest entry of the gradient at which L-BFGS stops
      max_iterations=200,
  ))


def knn() -> ml_collections.ConfigDict:
  """Weighted nearest neighbours (Wu et al. 2018, section 3.4)."""
  return ml_collections.ConfigDict(dict(k=200, temperature=0.07))
