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
      # Modules of byol_jax/evaluators, or dotted paths, and the options of their fit functions.
      evaluators=ml_collections.ConfigDict(dict(), allow_dotted_keys=True),
      supervised=supervised(),
  )).lock()


def with_evaluators(config: ml_collections.ConfigDict, names: str) -> ml_collections.ConfigDict:
  """Adds the evaluators that the argument of a config names: 'linear', 'linear_features,knn'."""
  known = dict(linear=linear, linear_features=linear_features, knn=knn, knn_grid=knn_grid,
               few_shot=few_shot, linear_transfer=linear_transfer,
               semi_supervised=semi_supervised, fine_tuned_transfer=fine_tuned_transfer,
               retrieval=retrieval)
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


def semi_supervised() -> ml_collections.ConfigDict:
  """Semi-supervised evaluation (appendix C.1); details: evaluators/semi_supervised.py."""
  return ml_collections.ConfigDict(dict(
      learning_rates=(0.01, 0.02, 0.05, 0.1, 0.005),  # per 256 images, one is chosen (C.1)
      epochs=(30.0, 50.0),  # passes over the training images, one is chosen (C.1)
      batch_size=1024,  # images per step over all devices (C.1)
      momentum=0.9,  # Nesterov (C.1)
      batch_norm_decay=0.9,  # of the running statistics; the paper is silent, as in pretraining
      view=dict(crop_area=(0.08, 1.0), crop_aspect=(3 / 4, 4 / 3), flip_probability=0.5),
      seed=0,  # of the order of the images and the augmentation
      max_steps=0,  # at most so many steps per point, for trials; 0: no limit
  ))


def fine_tuned_transfer() -> ml_collections.ConfigDict:
  """Transfer by fine-tuning (appendix D.3); details: evaluators/fine_tuned_transfer.py."""
  return ml_collections.ConfigDict(dict(
      # Per 256 images, one is chosen: 7 from 1e-4 to 1e-1, log-spaced (D.3).
      learning_rates=tuple(10.0 ** (power / 2) for power in range(-8, -1)),
      # Divided by the learning rate, one is chosen: 0 and 7 from 1e-6 to 1e-3 (D.3).
      weight_decays=(0.0, *(10.0 ** (power / 2) for power in range(-12, -5))),
      steps=20_000,  # of each point, and of the last run with the chosen one (D.3)
      batch_size=256,  # images per step over all devices (D.3)
      momentum=0.9,  # Nesterov (D.3)
      # What chooses: 'top1'; 'mean_per_class' for Aircraft, Pets, Caltech-101 and Flowers;
      # 'map_voc07' for VOC2007 (D.1, Table 10).
      metric='top1',
      view=dict(crop_area=(0.08, 1.0), crop_aspect=(3 / 4, 4 / 3), flip_probability=0.5),
      seed=0,  # of the order of the images and the augmentation
  ))


def linear_features() -> ml_collections.ConfigDict:
  """Logistic regression on cached features; l2 is chosen on the validation split."""
  return ml_collections.ConfigDict(dict(
      l2_values=tuple(10.0 ** power for power in range(-7, 2)),  # times |W|^2 / 2
      tolerance=1e-7,  # estimated relative distance from the minimum
      max_iterations=500,  # of L-BFGS for each of them
  ))


def knn() -> ml_collections.ConfigDict:
  """Weighted nearest neighbours (Wu et al. 2018, section 3.4)."""
  return ml_collections.ConfigDict(dict(k=200, temperature=0.07))


def knn_grid() -> ml_collections.ConfigDict:
  """Nearest neighbours with k and temperature chosen on held-out images."""
  return ml_collections.ConfigDict(dict(
      k_values=(1, 5, 10, 20, 50, 100, 200),  # those above the number of images are left out
      temperatures=(0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 1.0),
  ))


def few_shot() -> ml_collections.ConfigDict:
  """Ridge regression on a few images per class, in closed form."""
  return ml_collections.ConfigDict(dict(
      shots=(5, 10, 25),  # training images per class
      draws=5,  # of the images; the mean over them is reported
      l2_values=tuple(10.0 ** (power / 2) for power in range(-8, 13)),  # one is chosen
      seed=0,  # of the draws
  ))


def linear_transfer() -> ml_collections.ConfigDict:
  """Linear transfer (appendix D.2); details: evaluators/linear_transfer.py."""
  return ml_collections.ConfigDict(dict(
      # 45 from 1e-6 to 1e5, log-spaced, for a sum over the images; one is chosen (D.2).
      l2_values=tuple(10.0 ** (power / 4) for power in range(-24, 21)),
      # What chooses: 'top1', 'mean_per_class' or 'map_voc07' (D.1, Table 10).
      metric='top1',
      tolerance=1e-7,  # estimated relative distance from the minimum
      max_iterations=1000,  # of L-BFGS for each penalty
      dtype='float64',  # of L-BFGS; a TPU has it in software only: 'float32', tolerance 1e-5
  ))


def retrieval() -> ml_collections.ConfigDict:
  """A gallery ranked for queries; details: evaluators/retrieval.py, ranking.py, reranking.py."""
  return ml_collections.ConfigDict(dict(
      # 'lists': as the data set lists them; for data sets with classes 'train', the training
      # images, or 'test', the other test images.
      gallery='train',
      whitening=0,  # dimensions of a PCA-whitening fitted on training images; 0 for none
      rerank=False,  # by k-reciprocal neighbours (Zhong et al. 2017)
      k1=20,  # nearest images that can be reciprocal (section 4.1 there)
      k2=6,  # nearest images whose vectors are averaged (likewise)
      original_weight=0.3,  # of the original distance, lambda (likewise)
      recall_at=(10, 100),  # depths
      depth=50,  # images of each list that are written down
      pictured=3,  # queries drawn of each kind: evenly chosen, best and worst; 0: no picture
      block_bytes=2 ** 28,  # of similarities held at a time
      most_bytes=2 ** 33,  # that re-ranking may take
  ))
