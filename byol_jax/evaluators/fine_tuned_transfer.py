"""Transfer by fine-tuning as in the paper (appendix D.3, Table 3).

The encoder and a new linear classifier are trained on another data set. Learning rate and
weight decay are chosen on its held-out images. With the chosen values, encoder and classifier are
trained again on training and held-out images together.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from byol_jax import ranges
from byol_jax.augment.views import CROP_OPTIONS, CROP_RANGES
from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuned, fine_tuning, grids, scoring
from byol_jax.evaluation.contract import FitContext, Images

TITLE, METRICS, MAIN_METRIC = 'fine-tuned (D.3)', scoring.TITLES, 'top1'
IN_TABLE = ('top1',)
REFITS = True
TRAINS_ENCODER = True
SEVERAL_LABELS = True
OPTIONS = dict(
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
    view=dict(CROP_OPTIONS),
    seed=0,  # of the order of the images and the augmentation; a whole number of 0 or more
)
RANGES = dict(
    learning_rates=ranges.GRID,
    weight_decays=ranges.Several(ranges.NOT_NEGATIVE, order='each once'), steps=ranges.whole(1),
    batch_size=ranges.whole(1), momentum=ranges.MOMENTUM, metric=ranges.OneOf(scoring.METRICS),
    view=CROP_RANGES, seed=ranges.SEED)
check = scoring.check
PROTOCOL = (
    'Transfer by fine-tuning as in appendix D.3 of the paper: encoder and new linear classifier '
    'are trained with random crop and flip, middle crop in testing, SGD with Nesterov momentum; '
    'learning rate and weight decay, which is divided by the learning rate, are chosen by the '
    'metric on held-out images, the first of equals, and the chosen ones train once more on '
    'training and held-out images together. BatchNorm in training mode, its decay max(1 - 10/s, '
    '0.9) with s steps per epoch. Where the paper is silent: a cosine to 0 without warm-up as in '
    "the reference's linear evaluation, learning rates per 256 images, no weight decay on biases "
    'and normalisation, the classifier starts at zeros. The loss is the cross-entropy of the '
    'softmax; of images with several labels the sum over the classes of the cross-entropy of the '
    'sigmoid, without the classes that are not to be judged (difficult objects only).')
# Values of the options of `fit` in D.3.
PAPER = dict(learning_rates=tuple(10. ** (power / 2) for power in range(-8, -1)),
             weight_decays=(0., *(10. ** (power / 2) for power in range(-12, -5))),
             steps=20_000, batch_size=256, momentum=0.9)

evaluate = fine_tuned.evaluate


def batch_norm_decay(num_examples: int, batch_size: int) -> float:
  """max(1 - 10 / s, 0.9) with s = num_examples / batch_size steps per epoch (D.3)."""
  return max(1 - 10 * batch_size / num_examples, 0.9)


def fit(context: FitContext, *, learning_rates: Sequence[float], weight_decays: Sequence[float],
        steps: int, batch_size: int, momentum: float, metric: str, view: Mapping[str, Any],
        seed: int) -> fine_tuned.Fitted:
  """Fine-tunes with every pair of the grid, and again with the best pair on held-out images.

  Args:
    context: labelled training images in front of the encoder, features of the held-out images,
      which are used for the choice, and the grid. Each class must have training images.
    learning_rates: peaks for a batch of 256 images.
    weight_decays: 0 or more; the l2 coefficient is the weight decay / the learning rate.
    steps: number of steps of every run.
    batch_size: images per step over all devices.
    momentum: momentum of Nesterov's method.
    metric: metric for the choice, one of `scoring.METRICS`: 'map_voc07' if an image can have
      several labels. The other metrics of `scoring.score` are also reported.
    view: `crop_area`, `crop_aspect` and `flip_probability`.
    seed: seed of the order of the images and the augmentation.

  Raises:
    InputError: classes have no training images, held-out images are unusable, or all points have
      diverged.
  """
  fine_tuned.check('fine_tuned_transfer', context, metric)
  count, labels = fine_tuned.checked_validation(context, metric)
  train, num_classes = context.images, context.num_classes
  validation = functools.partial(context.features, 'validation')
  options = dict(batch_size=batch_size, momentum=momentum, view=dict(view), seed=seed)
  run = _runner(train, num_classes, steps, options)

  def train_point(point, timed):
    weights = run(point, timed)
    return fine_tuned.scores(weights, validation, metric), weights

  points = [dict(learning_rate=rate, weight_decay=decay) for rate in learning_rates
            for decay in weight_decays]
  found = grids.search(
      context.grid().having(options=dict(options, steps=steps), validation=labels,
                            train_images=train.num_examples),
      points, train_point, steps=[steps] * len(points), steps_after=steps, metric=metric,
      keep_weights=False)
  weights, images = _refit(train, points[found.chosen], num_classes, steps, options)
  return fine_tuned.Fitted(
      weights, found.candidates, found.chosen, num_classes,
      dict(options, steps=steps, metric=metric, learning_rates=tuple(learning_rates),
           weight_decays=tuple(weight_decays),
           batch_norm_decay=batch_norm_decay(images, batch_size)), images, count)


def describe(fitted: fine_tuned.Fitted) -> dict[str, Any]:
  """The protocol in words, the choice, all points, options and numbers of images.

  'train_images' and 'batch_norm_decay' are the values of the last run, on training and held-out
  images together.
  """
  return fine_tuned.describe(fitted, PROTOCOL, PAPER)


def _runner(images: Images, num_classes: int, steps: int, options: Mapping[str, Any]):
  """(point, timed) -> the weights after training with this point on these images."""
  run = fine_tuning.runner(
      images, num_classes=num_classes,
      batch_norm_decay=batch_norm_decay(images.num_examples, options['batch_size']), **options)
  return lambda point, timed: run(
      learning_rate=point['learning_rate'], max_steps=steps, timed=timed,
      weight_decay=point['weight_decay'] / point['learning_rate'])


def _refit(train: Images, point: grids.Point, num_classes: int, steps: int,
           options: Mapping[str, Any]) -> tuple[fine_tuning.Weights, int]:
  """The weights of the chosen point on training and held-out images, and the number of images."""
  both = train.with_validation()
  weights = _runner(both, num_classes, steps, options)(point, None)
  if weights is None:
    raise InputError(
        f'fine_tuned_transfer: the chosen point {dict(point)} has diverged on the '
        f'{both.num_examples} training and validation images together; leave the learning rate '
        f'{point["learning_rate"]:g} out of evaluators.fine_tuned_transfer.learning_rates.')
  return weights, both.num_examples
