"""Every key of an evaluation, defined once, with its unit, source and range.

As in configs/default.py, the text after the last semicolon of a key's comment says which values
it accepts.
"""

import ml_collections

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
          options=dict(),  # of its load function
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


def _view(area: tuple[float, float] = (0.08, 1.0)) -> ml_collections.ConfigDict:
  """Random crop and flip in training (appendix C.1)."""
  return ml_collections.ConfigDict(dict(
      crop_area=area,  # share of the image's area, uniform; two numbers in [0.0001, 1], ascending
      # Width / height, log-uniform; two numbers in [0.01, 100], ascending
      crop_aspect=(3 / 4, 4 / 3),
      flip_probability=0.5,  # a number in [0, 1]
  ))


def supervised() -> ml_collections.ConfigDict:
  """The supervised baseline; augmentation and optimizer are the paper's (appendix C.1)."""
  return ml_collections.ConfigDict(dict(
      epochs=10.0,  # passes over the training images; a number above 0
      batch_size=64,  # images per step over all devices; a whole number of 1 or more
      base_learning_rate=0.1,  # per 256 images, falls to 0 along a cosine; a number above 0
      momentum=0.9,  # Nesterov; a number in [0, 1)
      weight_decay=1e-4,  # l2; a number in [0, 100]
      view=_view(area=(0.5, 1.0)),
  ))


def linear() -> ml_collections.ConfigDict:
  """The paper's linear evaluation (appendix C.1); details: evaluators/linear.py."""
  return ml_collections.ConfigDict(dict(
      # Per 256 images; one is chosen (C.1); one or more numbers above 0, each once
      learning_rates=(0.4, 0.3, 0.2, 0.1, 0.05),
      epochs=80.0,  # passes over the training images (C.1); a number above 0
      batch_size=1024,  # images per step over all devices (C.1); a whole number of 1 or more
      momentum=0.9,  # Nesterov (C.1); a number in [0, 1)
      view=_view(),
      seed=0,  # of the order of the images and the augmentation; a whole number of 0 or more
      # Train again on training and held-out images together (not in the paper); True or False
      refit=False,
  ))


def semi_supervised() -> ml_collections.ConfigDict:
  """Semi-supervised evaluation (appendix C.1); details: evaluators/semi_supervised.py."""
  return ml_collections.ConfigDict(dict(
      # Per 256 images; one is chosen (C.1); one or more numbers above 0, each once
      learning_rates=(0.01, 0.02, 0.05, 0.1, 0.005),
      # Passes over the training images; one is chosen (C.1);
      # one or more numbers above 0, each once
      epochs=(30.0, 50.0),
      batch_size=1024,  # images per step over all devices (C.1); a whole number of 1 or more
      momentum=0.9,  # Nesterov (C.1); a number in [0, 1)
      # Of the running statistics (the paper is silent; as in pretraining); a number in [0, 1)
      batch_norm_decay=0.9,
      view=_view(),
      seed=0,  # of the order of the images and the augmentation; a whole number of 0 or more
      # Most steps per grid point, for trials (0: no limit); a whole number of 0 or more
      max_steps=0,
  ))


def fine_tuned_transfer() -> ml_collections.ConfigDict:
  """Transfer by fine-tuning (appendix D.3); details: evaluators/fine_tuned_transfer.py."""
  return ml_collections.ConfigDict(dict(
      # Per 256 images; one of 7 from 1e-4 to 1e-1, log-spaced, is chosen (D.3);
      # one or more numbers above 0, each once
      learning_rates=tuple(10.0 ** (power / 2) for power in range(-8, -1)),
      # Divided by the learning rate; one of 0 and 7 from 1e-6 to 1e-3 is chosen (D.3);
      # one or more numbers of 0 or more, each once
      weight_decays=(0.0, *(10.0 ** (power / 2) for power in range(-12, -5))),
      # Per grid point, and in the final run with the best one (D.3); a whole number of 1 or more
      steps=20_000,
      batch_size=256,  # images per step over all devices (D.3); a whole number of 1 or more
      momentum=0.9,  # Nesterov (D.3); a number in [0, 1)
      # Metric for the choice: 'top1'; 'mean_per_class' for Aircraft, Pets, Caltech-101 and
      # Flowers; 'map_voc07' for VOC2007 (D.1, Table 10);
      # 'top1', 'mean_per_class' or 'map_voc07'
      metric='top1',
      view=_view(),
      seed=0,  # of the order of the images and the augmentation; a whole number of 0 or more
  ))


def linear_features() -> ml_collections.ConfigDict:
  """Logistic regression on cached features; l2 is chosen on the validation split."""
  return ml_collections.ConfigDict(dict(
      # Factors of |W|^2 / 2; one or more numbers above 0, each once
      l2_values=tuple(10.0 ** power for power in range(-7, 2)),
      tolerance=1e-7,  # estimated relative distance from the minimum; a number above 0
      max_iterations=500,  # of L-BFGS for each l2; a whole number of 1 or more
  ))


def knn() -> ml_collections.ConfigDict:
  """Weighted nearest neighbours (Wu et al. 2018, section 3.4)."""
  return ml_collections.ConfigDict(dict(
      # Neighbours, at most the number of training images; a whole number of 1 or more
      k=200,
      temperature=0.07,  # of their votes; a number above 0
  ))


def knn_grid() -> ml_collections.ConfigDict:
  """Nearest neighbours with k and temperature chosen on held-out images."""
  return ml_collections.ConfigDict(dict(
      # Values above the number of training images are left out;
      # one or more whole numbers of 1 or more, each once
      k_values=(1, 5, 10, 20, 50, 100, 200),
      # Of the neighbours' votes; one or more numbers above 0, each once
      temperatures=(0.01, 0.02, 0.05, 0.07, 0.1, 0.2, 1.0),
  ))


def few_shot() -> ml_collections.ConfigDict:
  """Ridge regression on a few images per class, in closed form."""
  return ml_collections.ConfigDict(dict(
      # Training images per class; one or more whole numbers of 1 or more, each once
      shots=(5, 10, 25),
      # Random draws of the images; their mean score is reported; a whole number of 1 or more
      draws=5,
      # One is chosen; one or more numbers above 0, each once
      l2_values=tuple(10.0 ** (power / 2) for power in range(-8, 13)),
      seed=0,  # of the draws; a whole number of 0 or more
  ))


def linear_transfer() -> ml_collections.ConfigDict:
  """Linear transfer (appendix D.2); details: evaluators/linear_transfer.py."""
  return ml_collections.ConfigDict(dict(
      # 45 from 1e-6 to 1e5, log-spaced, for a loss summed over the images; one is chosen (D.2);
      # one or more numbers above 0, each once
      l2_values=tuple(10.0 ** (power / 4) for power in range(-24, 21)),
      # Metric for the choice (D.1, Table 10); 'top1', 'mean_per_class' or 'map_voc07'
      metric='top1',
      tolerance=1e-7,  # estimated relative distance from the minimum; a number above 0
      max_iterations=1000,  # of L-BFGS for each penalty; a whole number of 1 or more
      # Precision of L-BFGS. A TPU emulates float64 in software: use 'float32' with tolerance
      # 1e-5 there; 'float32' or 'float64'
      dtype='float64',
  ))


def retrieval() -> ml_collections.ConfigDict:
  """A gallery ranked for each query.

  Details: evaluators/retrieval.py, evaluation/ranking.py and evaluation/reranking.py.
  """
  return ml_collections.ConfigDict(dict(
      # 'lists': the data set lists queries and gallery. For data sets with classes: 'train', the
      # training images, or 'test', the other test images; 'lists', 'train' or 'test'
      gallery='train',
      # Dimensions kept by a PCA whitening fitted on training images (0: no whitening);
      # a whole number of 0 or more
      whitening=0,
      rerank=False,  # by k-reciprocal neighbours (Zhong et al. 2017); True or False
      # Nearest images that can be reciprocal (section 4.1 there); a whole number of 1 or more
      k1=20,
      # Nearest images whose vectors are averaged, at most k1 + 1 (likewise);
      # a whole number of 1 or more
      k2=6,
      original_weight=0.3,  # of the original distance, lambda (likewise); a number in [0, 1]
      # Depths at which recall is reported; one or more whole numbers of 1 or more, each once
      recall_at=(10, 100),
      depth=50,  # images of each ranked list that are written; a whole number of 1 or more
      # Queries in the picture of each kind: evenly chosen, best and worst (0: no picture);
      # a whole number of 0 or more
      pictured=3,
      # Bytes of similarities held at a time (64 bits); a whole number of 1 or more
      block_bytes=2 ** 28,
      # Most bytes that re-ranking may use (64 bits); a whole number of 1 or more
      most_bytes=2 ** 33,
  ))
