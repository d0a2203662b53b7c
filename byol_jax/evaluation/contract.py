"""Evaluators: one file each, one contract.

An evaluator measures how good an encoder is. It is a module with three functions::

    fit(context, **options) -> fitted
    evaluate(fitted, context) -> dict[str, float]
    describe(fitted) -> dict

`fit` makes every choice. Its context is a `FitContext`, which has only training and held-out
images: requesting the test split raises an error. `evaluate` chooses nothing. Its context is
an `EvalContext`, which has only the test images. It is made after all evaluators have been
fitted, so that the test split is read once, at the end. Everything in a context is read, encoded
or opened only when it is requested.

There is one exception. An evaluator that ranks listed images must know at `fit` which images
of the test split are queries and which camera took them. `FitContext.roles` has this information,
without the identities and without an image.

`evaluate` returns fractions in [0, 1] such as {'top1': 0.7, 'top5': 0.9}; 'top5' only if there
are more than five classes. 'top1_std' next to 'top1' is its standard deviation over draws of the
images. `describe` returns what a reader of the result needs to know: the protocol in words, the
choice that was made and the numbers of images.

Options come from the config, and the module's `RANGES` has their allowed values
(`plugins.function`). An option `batch_size` is the number of images in a training step over all
devices. A function `check(facts, **options)` with the options of `fit` can raise InputError if
the `Facts` show that something is impossible, before an image is encoded. A function
`note(scores)` can return a sentence that is printed below the table. Every InputError says what is
wrong, with the numbers, and how to fix it.

Constants describe the module to tables and checks. None changes what its functions get.

- `OPTIONS` and `RANGES`: the options of `fit` with their defaults, and their allowed values.
- `METRICS`: {name: title} of all fractions that `evaluate` may return, where '{}' in both stands
  for a number ('top1_{}_shots').
- `MAIN_METRIC`: the metric that represents the result, unless `describe` returns a 'metric'.
- `TITLE`: what tables call the evaluator; without it, the name of the module.
- `IN_TABLE`: metrics shown next to the main metric in the table of an evaluation.
- `SEVERAL_LABELS = True`: an image may have several classes.
- `TRAINS_ENCODER = True`: the encoder is trained further before it is evaluated.
- `REFITS = True`: the last fit is on training and held-out images together.
- `RETRIEVES = True`: a gallery is ranked for each query, and nothing is chosen.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax.errors import InputError
from byol_jax.evaluation.grids import Grid
from byol_jax.input_pipeline.records import Known, numbered
from byol_jax.input_pipeline.retrieval_lists import Roles

# The splits that each context has.
FIT_SPLITS, EVAL_SPLITS = ('train', 'validation'), ('test',)


class Features(NamedTuple):
  """Embeddings of a split, one row per image.

  embeddings: float32 [N, D].
  labels: int32 [N] in 0 ... num_classes - 1, or None for unlabelled images; int32
    [N, num_classes] if an image can have several classes: 1 present, 0 absent, -1 ignored.
  sample_id: int32 [N], the ids of the images in their split.
  """

  embeddings: np.ndarray
  labels: np.ndarray | None
  sample_id: np.ndarray


class FrozenEncoder(NamedTuple):
  """An encoder in its state at the start of the evaluation.

  encode: pure function of (variables, views [B, H, W, 3] in [0, 1]) -> embeddings [B, D], in
    evaluation mode.
  variables: (params, state); () for raw pixels.
  training: batch_norm_decay -> pure function of (params, state, views) -> (embeddings [B, D],
    state), in training mode. None for raw pixels, because there is nothing to train.
  """

  encode: Callable[..., chex.Array]
  variables: chex.ArrayTree
  training: Callable[[float], Callable[..., tuple[chex.Array, chex.ArrayTree]]] | None = None


class Images(NamedTuple):
  """Training images in front of an encoder, for evaluators that augment them.

  encoder: the encoder.
  batches: (policies, seed, batch_size, first_step, last_step) -> labelled batches; all arguments
    except the first are given by keyword.
  single_views: (policy, seed) -> function of such a batch: one randomly cropped and flipped view
    of each image, float32 [B, image_size, image_size, 3] in [0, 1].
  num_examples: number of training images over all hosts.
  image_size: side of the views in pixels.
  labels: () -> labels of all hosts' images in the order of their ids, int32 [N], or [N, C] for
    several classes.
  with_validation: () -> the Images of training and held-out images together; None if these
    already are.
  """

  encoder: FrozenEncoder
  batches: Callable[..., Iterator[Mapping[str, np.ndarray]]]
  single_views: Callable[..., Callable[..., chex.Array]]
  num_examples: int
  image_size: int
  labels: Callable[[], np.ndarray]
  with_validation: Callable[[], 'Images'] | None = None


class FitContext(NamedTuple):
  """What `fit` can use: training and held-out images.

  num_classes: number of classes in the data set.
  features: (split, variables=None) -> the Features of 'train' or 'validation'. Those of the
    unchanged encoder are computed once for all evaluators; with `variables` the split is encoded
    again. Raises ValueError for another split.
  images: the training images in front of the encoder.
  grid: () -> the store of the finished points of the evaluator's grid.
  roles: which images of the test split are queries; `label` is None. None if the data set
    has no lists.
  """

  num_classes: int
  features: Callable[..., Features]
  images: Images | None = None
  grid: Callable[[], Grid] | None = None
  roles: Roles | None = None


class EvalContext(NamedTuple):
  """What `evaluate` can use: the test images.

  features: as in `FitContext`, but only for 'test'.
  keep: saves a `ranking.Result`.
  """

  features: Callable[..., Features]
  keep: Callable[[Any], None] | None = None


def restricted(features: Callable[..., Features], splits: Sequence[str]
               ) -> Callable[..., Features]:
  """The function `features` of a context, which raises ValueError for any other split."""
  def of_split(split: str, variables: chex.ArrayTree | None = None) -> Features:
    if split not in splits:
      raise ValueError(
          f'This context has features of {" and ".join(splits)}, not of {split!r}. `fit` sees '
          'training and held-out images only, and `evaluate` the test images only: correct the '
          'evaluator.')
    return features(split, variables)
  return of_split


def of_features(num_classes: int, **features: Features) -> tuple[FitContext, EvalContext]:
  """The contexts for an evaluator that needs only features, which have been computed before.

  Args:
    num_classes: number of classes in the data set.
    **features: features by split: train, validation, test.
  """
  of_split = lambda split, variables: features[split]
  return (FitContext(num_classes, restricted(of_split, FIT_SPLITS)),
          EvalContext(restricted(of_split, EVAL_SPLITS)))


class Facts(NamedTuple):
  """What is known before an image is encoded, for the `check` of an evaluator.

  train: the training images.
  validation: the held-out images.
  test: the test images; None as long as something must still be chosen.
  num_classes: number of classes in the data set.
  multi_label: whether an image has several classes.
  embedding_size: () -> the smallest embedding dimension of all encoders.
  roles: the roles of the test split; None if the data set has no lists.
  class_names: names of the classes, for messages; () if they have no names.
  """

  train: Known
  validation: Known
  test: Known | None
  num_classes: int
  multi_label: bool
  embedding_size: Callable[[], int]
  roles: Roles | None = None
  class_names: Sequence[str] = ()


def check_features(name: str, features: Features, num_classes: int, *,
                   multi_label: bool = False) -> None:
  """Checks that an evaluator can use these features.

  Args:
    name: name of the features for the message: 'train', 'validation', 'test'.
    features: features of N images, with embeddings [N, D].
    num_classes: number of classes in the data set.
    multi_label: whether the evaluator needs labels [N, num_classes]; otherwise it needs [N].

  Raises:
    InputError: there are no images or no labels, labels are out of range or of the other kind,
      or embeddings are not finite.
  """
  embeddings, labels, sample_id = features
  chex.assert_rank(embeddings, 2)
  chex.assert_shape(sample_id, embeddings.shape[:1])
  if not len(embeddings):
    raise InputError(f'The {name} features hold no images (embeddings of shape '
                     f'{list(embeddings.shape)}); give at least one image.')
  if labels is None:
    raise InputError(f'The {len(embeddings)} {name} images have no labels, which this '
                     'evaluator needs; use a labelled data set, or leave the evaluator out.')
  _check_labels(name, labels, len(embeddings), num_classes, multi_label)
  # The sum of a row is finite if and only if all its values are, and does not
  # need an array of the size of the embeddings.
  broken = np.count_nonzero(~np.isfinite(np.sum(embeddings, axis=1)))
  if broken:
    raise InputError(f'{broken} of the {len(embeddings)} {name} images have embeddings that are '
                     'not finite; the encoder has diverged. Evaluate an earlier checkpoint.')


def _check_labels(name: str, labels: np.ndarray, count: int, num_classes: int, multi_label: bool
                  ) -> None:
  if (labels.ndim == 2) != multi_label:
    kinds = 'one class', 'several classes'
    raise InputError(f'The {name} labels, {list(labels.shape)}, give {kinds[not multi_label]} per '
                     f'image; this evaluator needs {kinds[multi_label]}. Use another '
                     'evaluator, or another feature as data.options.label_key.')
  chex.assert_shape(labels, (count, num_classes) if multi_label else (count,))
  low, high = (-1, 1) if multi_label else (0, num_classes - 1)
  if labels.min() < low or labels.max() > high:
    raise InputError(f'The {name} labels run from {labels.min()} to {labels.max()}, outside '
                     f'{low} ... {high}; correct the labels or num_classes.')


def check_classes(labels: np.ndarray, num_classes: int, class_names: Sequence[str] = ()) -> None:
  """Raises InputError if a class has no training image.

  Args:
    labels: labels of all training images, int [N], or [N, C] for several classes.
    num_classes: number of classes in the data set.
    class_names: names of the classes for the message; () if they have no names.
  """
  present = np.flatnonzero((labels > 0).any(axis=0)) if labels.ndim == 2 else labels
  missing = np.setdiff1d(np.arange(num_classes), present)
  if len(missing):
    named = ', '.join(numbered(class_names, one) for one in missing[:10]) + (
        ', ...' if len(missing) > 10 else '')
    raise InputError(f'{len(missing)} of {num_classes} classes have no image among the '
                     f'{len(labels)} training images: {named}. Use more training images, as many '
                     'from each class, or correct num_classes.')
