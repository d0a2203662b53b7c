"""Evaluators: one file each, one contract.

An evaluator judges frozen embeddings. It is a module with three functions::

    fit(train, validation, *, num_classes, **options) -> fitted
    evaluate(fitted, test) -> dict[str, float]
    describe(fitted) -> dict

and two constants: `METRICS`, {name: title} of all fractions that its `evaluate` may return,
where '{}' in both stands for a number ('top1_{}_shots'), and `MAIN_METRIC`, the name that
stands for the result. Where `describe` returns a 'metric', that one is the main metric of the
result. `TITLE` is what tables call the evaluator (the name of the module without it), `IN_TABLE`
names metrics that stand beside the main one in the table of an evaluation.

`train`, `validation` and `test` are `Features`, made by `features.extract`. A module
with `TRAINS_ON_IMAGES = True` gets `Images` as `train`: the encoder and augmented
batches of the training images.

A module with `TRAINS_ENCODER = True` changes the encoder, so embeddings can only be
made when it has been trained: it gets `Images` as `train`, and as `validation` and
`test` a function of the encoder's variables that returns the split's `Features`. Its
`fit` gets one keyword more, `grid`, a `grids.Grid`: where the finished points of
its grid are kept.

A module with `RETRIEVES = True` ranks the images of a gallery, and may not need those for
training at all: it gets as `train` and `validation` functions without arguments that
return the Features. Its `fit` gets one keyword more, `roles`, the `retrieval_lists.Roles`
of the test split (None where the data set has no lists), and its `evaluate` one,
`keep`, which it calls with what is to be written down, a `retrieval.Result`.

A module can have a function `check(facts, **options)` with the options of its `fit`. It raises
InputError for what the `Facts` show to be impossible, before an image is encoded.

A module with `REFITS = True` ends with a fit on training and held-out images together. One
with a function `note(scores)` has a sentence for below the table.

A module with `SEVERAL_LABELS = True` takes images that have several classes each.

`fit` makes every choice, on `validation`: training images held out from
`train`. `evaluate` chooses nothing, so the caller can read the test split once,
last. It returns fractions in [0, 1] such as {'top1': 0.7, 'top5': 0.9}; 'top5'
only where there are more than five classes. 'top1_std' beside 'top1' is its standard deviation
over draws of the images. The caller puts the module's name
before the names of the metrics. `describe` returns what a reader of the result
needs: the protocol in words, the choice made and the counts of images.
Options come from the configuration; what they can be, the module says in `RANGES`
(`plugins.function`). A module raises InputError with what is wrong, the numbers, and
the way out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax.errors import InputError
from byol_jax.input_pipeline.records import Known, numbered

# METRICS of an evaluator that returns what `accuracy` does.
ACCURACY = dict(top1='top-1', top5='top-5')


class Features(NamedTuple):
  """Embeddings of a split, one row per image.

  embeddings: float32 [N, D].
  labels: int32 [N] in 0 ... num_classes - 1, or None for unlabelled images; int32
    [N, num_classes] where an image has several classes: 1 present, 0 absent, -1 not to be
    judged.
  sample_id: int32 [N], the ids of the images in their split.
  """

  embeddings: np.ndarray
  labels: np.ndarray | None
  sample_id: np.ndarray


class Images(NamedTuple):
  """Training images in front of a frozen encoder, for evaluators that augment them.

  encode: pure function of (variables, views [B, H, W, 3] in [0, 1]) -> embeddings
    [B, D], in evaluation mode.
  variables: the parameters and state of the encoder.
  batches: (policies, seed, batch_size, first_step, last_step) -> labelled batches, as
    `augment.views.crop_and_flip` takes them; all but the first by keyword.
  num_examples: training images over all hosts.
  image_size: side of the views in pixels.
  virtual_shards: must divide a batch.
  with_validation: () -> the same of training and held-out images together.
  training: batch_norm_decay -> pure function of (params, state, views) -> (embeddings
    [B, D], state), in training mode; for evaluators that train the encoder, whose
    `variables` are (params, state). None where there is nothing to train.
  labels: () -> int32 [N], or [N, C] of several classes, of all hosts' images in the order of
    their ids; likewise.
  """

  encode: Callable[..., chex.Array]
  variables: chex.ArrayTree
  batches: Callable[..., Iterator[Mapping[str, np.ndarray]]]
  num_examples: int
  image_size: int
  virtual_shards: int
  with_validation: Callable[[], 'Images']
  training: Callable[[float], Callable[..., tuple[chex.Array, chex.ArrayTree]]] | None = None
  labels: Callable[[], np.ndarray] | None = None


class Facts(NamedTuple):
  """What is known before an image is encoded, for the `check` of an evaluator.

  train: the training images.
  validation: the held-out ones.
  test: the test images; None as long as something is to be chosen.
  num_classes: classes in the data set.
  multi_label: whether an image has several classes.
  virtual_shards: must divide a batch of training images.
  embedding_size: () -> numbers in an embedding of the encoder that has the fewest.
  roles: the `retrieval_lists.Roles` of the test split; None where the data set has no lists.
  class_names: of the classes, for messages; () where they have none.
  """

  train: Known
  validation: Known
  test: Known | None
  num_classes: int
  multi_label: bool
  virtual_shards: int
  embedding_size: Callable[[], int]
  roles: Any = None
  class_names: Sequence[str] = ()


def check_features(name: str, features: Features, num_classes: int, *,
                   multi_label: bool = False) -> None:
  """Checks that an evaluator can use these features.

  Args:
    name: what the features are, for the message: 'train', 'validation', 'test'.
    features: of N images, embeddings [N, D].
    num_classes: classes in the data set.
    multi_label: the evaluator takes labels [N, num_classes], and no others.

  Raises:
    InputError: no images, no labels, labels out of range or of the other kind, or
      embeddings that are not finite.
  """
  embeddings, labels, sample_id = features
  chex.assert_rank(embeddings, 2)
  chex.assert_shape(sample_id, embeddings.shape[:1])
  if not len(embeddings):
    raise InputError(f'The {name} features hold no images (embeddings of shape '
                     f'{list(embeddings.shape)}); give at least one image.')
  if labels is None:
    raise InputError(f'The {len(embeddings)} {name} images have no labels, which this '
                     'evaluator needs; use a labelled data set, or leave it out.')
  _check_labels(name, labels, len(embeddings), num_classes, multi_label)
  # The sum of a row is finite just where all its values are, and needs no
  # array of the size of the embeddings.
  broken = np.count_nonzero(~np.isfinite(np.sum(embeddings, axis=1)))
  if broken:
    raise InputError(f'{broken} of the {len(embeddings)} {name} images have embeddings that are '
                     'not finite; the encoder has diverged, evaluate an earlier checkpoint.')


def _check_labels(name: str, labels: np.ndarray, count: int, num_classes: int, multi_label: bool
                  ) -> None:
  if (labels.ndim == 2) != multi_label:
    kinds = 'one class', 'several classes'
    raise InputError(f'The {name} labels, {list(labels.shape)}, are {kinds[not multi_label]} for '
                     f'each image; this evaluator needs {kinds[multi_label]}. Use another '
                     'evaluator, or another feature as data.options.label_key.')
  chex.assert_shape(labels, (count, num_classes) if multi_label else (count,))
  low, high = (-1, 1) if multi_label else (0, num_classes - 1)
  if labels.min() < low or labels.max() > high:
    raise InputError(f'The {name} labels run from {labels.min()} to {labels.max()}, outside '
                     f'{low} ... {high}; correct the labels or num_classes.')


def check_classes(labels: np.ndarray, num_classes: int, class_names: Sequence[str] = ()) -> None:
  """Raises InputError where a class has no training image.

  Args:
    labels: of all training images, int [N], or [N, C] of several classes.
    num_classes: classes in the data set.
    class_names: for the message; () where classes have none.
  """
  present = np.flatnonzero((labels > 0).any(axis=0)) if labels.ndim == 2 else labels
  missing = np.setdiff1d(np.arange(num_classes), present)
  if len(missing):
    named = ', '.join(numbered(class_names, one) for one in missing[:10]) + (
        ', ...' if len(missing) > 10 else '')
    raise InputError(f'{len(missing)} of {num_classes} classes have none of the {len(labels)} '
                     f'training images: {named}. Take more training images, the same number of '
                     'each class, or correct num_classes.')


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """How many classes are ranked above the true one; 0 is a correct prediction.

  Classes are ranked by descending score; of equal scores the lower class wins.
  Scores that are not a number make no prediction correct.

  Args:
    scores: float [N, C].
    labels: int [N] in 0 ... C - 1.

  Returns:
    int [N] in 0 ... C - 1; C where the score of the true class is not a number.
  """
  chex.assert_shape(labels, scores.shape[:1])
  true_score = np.take_along_axis(scores, labels[:, None], axis=1)
  behind_at_ties = np.arange(scores.shape[1]) >= labels[:, None]
  not_above = (scores < true_score) | ((scores == true_score) & behind_at_ties)
  return scores.shape[1] - np.count_nonzero(not_above, axis=1)


def accuracy(ranks: np.ndarray, num_classes: int) -> dict[str, float]:
  """Top-1 and, for more than five classes, top-5 accuracy.

  Args:
    ranks: int [N] from `label_ranks`.
    num_classes: classes in the data set.

  Returns:
    Fractions in [0, 1] under 'top1' and 'top5'.
  """
  chex.assert_rank(ranks, 1)
  sizes = (1, 5) if num_classes > 5 else (1,)
  return {f'top{size}': float(np.mean(ranks < size)) for size in sizes}


def mean_per_class(ranks: np.ndarray, labels: np.ndarray) -> float:
  """The mean of the top-1 accuracies of the classes that occur in `labels`, in [0, 1].

  Args:
    ranks: int [N] from `label_ranks`.
    labels: int [N], the true classes.
  """
  chex.assert_equal_shape([ranks, labels])
  return float(np.mean([np.mean(ranks[labels == label] < 1) for label in np.unique(labels)]))
