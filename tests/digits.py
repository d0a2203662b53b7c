"""A real labelled problem: scikit-learn's 1,797 digits of 8x8 pixels, as features."""

import numpy as np
from sklearn import datasets

from byol_jax.evaluation.contract import Features


def split(*bounds):
  """Parts between the bounds, of the images in a fixed random order."""
  inputs, labels = datasets.load_digits(return_X_y=True)
  inputs, labels = inputs.astype(np.float32), labels.astype(np.int32)
  return [Features(inputs[rows], labels[rows], np.arange(len(rows), dtype=np.int32))
          for rows in np.split(np.random.default_rng(0).permutation(len(labels)), bounds)]
