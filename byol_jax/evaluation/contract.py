"""Evaluators: one file each, one contract.

An evaluator says how good an encoder is. It is a module with three functions::

    fit(context, **options) -> fitted
    evaluate(fitted, context) -> dict[str, float]
    describe(fitted) -> dict

`fit` makes every choice. Its context is a `FitContext`, which has training and held-out images
and no others: asking it for the test split raises. `evaluate` chooses nothing. Its context is
an `EvalContext`, which has the test images alone. It is made when all evaluators have been
fitted, so that the test split is read once, last. Whatever a context offers is read, encoded or
opened only when it is asked for.

There is one exception. An evaluator that ranks listed images must know at `fit` which images
of the test split are queries and which camera took them. `FitContext.roles` says that, without
the identities and without an image.

`evaluate` returns fractions in [0, 1] such as {'top1': 0.7, 'top5': 0.9}; 'top5' only where
there are more than five classes. 'top1_std' beside 'top1' is its standard deviation over draws
of the images. `describe` returns what a reader of the result needs: the protocol in words, the
choice made and the counts of images.

Options come from the configuration, and the module says in `RANGES` what they can be
(`plugins.function`). An option `batch_size` is the number of images in a training step over all
devices. A function `check(facts, **options)` with the options of `fit` can raise InputError for
what the `Facts` show to be impossible, before an image is encoded. A function `note(scores)`
can return a sentence for below the table. Every InputError says what is wrong, the numbers, and
the way out.

Constants describe the module to tables and checks. None changes what its functions get.

- `OPTIONS` and `RANGES`: the options of `fit` with their defaults, and what they can be.
- `METRICS`: {name: title} of all fractions that `evaluate` may return, where '{}' in both stands
  for a number ('top1_{}_shots').
- `MAIN_METRIC`: the metric that stands for the result, unless `describe` returns a 'metric'.
- `TITLE`: what tables call the evaluator; without it, the name of the module.
- `IN_TABLE`: metrics that stand beside the main one in the table of an evaluation.
- `SEVERAL_LABELS = True`: images may have several classes each.
- `TRAINS_ENCODER = True`: what is evaluated is the encoder after more training.
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
    [N, num_classes] where an image has several classes: 1 present, 0 absent, -1 does not count.
  sample_id: int32 [N], the ids of the images in their split.
  """

  embeddings: np.ndarray
  labels: np.ndarray | None
  sample_id: np.ndarray


class FrozenEncoder(NamedTuple):
  """An encoder as it is when the evaluation begins.

  encode: pure function of (variables, views [B, H, W, 3] in [0, 1]) -> embeddings [B, D], in
    evaluation mode.
  variables: (params, state); () for raw pixels.
  training: batch_norm_decay -> pure function of (params, state, views) -> (embeddings [B, D],
    state), in training mode. None for raw pixels, which have nothing to train.
  """

  encode: Callable[..., chex.Array]
  variables: chex.ArrayTree
  training: Callable[[float], Callable[..., tuple[chex.Array, chex.ArrayTree]]] | None = None


class Images(NamedTuple):
  """Training images in front of an encoder, for evaluators that augment them.

  encoder: the encoder.
  batches: (policies, seed, batch_size, first_step, last_step) -> labelled batches; all but the
    first by keyword.
  single_views: (policy, seed) -> function of such a batch: one randomly cropped and flipped view
    of each image, float32 [B, image_size, image_size, 3] in [0, 1].
  num_examples: training images over all hosts.
  image_size: side of the views in pixels.
  labels: () -> int32 [N], or [N, C] of several classes, of all hosts' images in the order of
    their ids.
  with_validation: () -> Images of the training and held-out images together. None for those.
  """

  encoder: FrozenEncoder
  batches: Callable[..., Iterator[Mapping[str, np.ndarray]]]
  single_views: Callable[..., Callable[..., chex.Array]]
  num_examples: int
  image_size: int
  labels: Callable[[], np.ndarray]
  with_validation: Callable[[], 'Images'] | None = None


class FitContext(NamedTuple):
  """What `fit` can ask for: training and held-out images.

  num_classes: classes in the data set.
  features: (split, variables=None) -> the Features of 'train' or 'validation'. Those of the
    encoder as it is are made once for all evaluators; with `variables` the split is encoded
    anew. Raises ValueError for another split.
  images: the training images in front of the encoder.
  grid: () -> where the finished points of the evaluator's grid are kept.
  roles: which images of the test split are queries; `label` is None. None where the data set
    has no lists.
  """

  num_classes: int
  features: Callable[..., Features]
  images: Images | None = None
  grid: Callable[[], Grid] | None = None
  roles: Roles | None = None


class EvalContext(NamedTuple):
  """What `evaluate` can ask for: the test images.

  features: as in `FitContext`, of 'test' alone.
  keep: saves a `ranking.Result`.
  """

  features: Callable[..., Features]
  keep: Callable[[Any], None] | None = None


def restricted(features: Callable[..., Features], splits: Sequence[str]
               ) -> Callable[..., Features]:
  """The function `features` of a context, which raises ValueError for other than these splits."""
  def of_split(split: str, variables: chex.ArrayTree | None = None) -> Features:
    if split not in splits:
      raise ValueError(
          f'This context has features of {" and ".join(splits)}, not of {split!r}. `fit` sees '
          'training and held-out images only, and `evaluate` the test images only: correct the '
          'evaluator.')
    return features(split, variables)
  return of_split


def of_features(num_classes: int, **features: Features) -> tuple[FitContext, EvalContext]:
  """The contexts where all that an evaluator needs are features that were made before.

  Args:
    num_classes: classes in the data set.
    **features: by split: train, validation, test.
  """
  of_split = lambda split, variables: features[split]
  return (FitContext(num_classes, restricted(of_split, FIT_SPLITS)),
          EvalContext(restricted(of_split, EVAL_SPLITS)))


class Facts(NamedTuple):
  """What is known before an image is encoded, for the `check` of an evaluator.

  train: the training images.
  validation: the held-out ones.
  test: the test images; None as long as something is to be chosen.
  num_classes: classes in the data set.
  multi_label: whether an image has several classes.
  embedding_size: () -> numbers in an embedding of the encoder that has the fewest.
  roles: the roles of the test split; None where the data set has no lists.
  class_names: names of the classes, for messages; () where they have none.
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
