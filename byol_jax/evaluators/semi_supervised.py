"""Semi-supervised evaluation as in the paper (appendix C.1, Tables 2 and 8).

The encoder and a new linear classifier are trained on the labelled training images, which
are those of the `train` split: 1 % or 10 % of ImageNet in the paper. Learning rate and number
of epochs are chosen on held-out training images.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

from byol_jax import ranges, schedules
from byol_jax.augment.views import CROP_OPTIONS, CROP_RANGES
from byol_jax.evaluation import fine_tuned, fine_tuning, grids, scoring
from byol_jax.evaluation.contract import Facts, FitContext

TITLE, METRICS, MAIN_METRIC = 'fine-tuned (C.1)', scoring.TITLES, 'top1'
IN_TABLE = ('top5',)
TRAINS_ENCODER = True
OPTIONS = dict(
    # Per 256 images; one is chosen (C.1); one or more numbers above 0, each once
    learning_rates=(0.01, 0.02, 0.05, 0.1, 0.005),
    # Passes over the training images; one is chosen (C.1);
    # one or more numbers above 0, each once
    epochs=(30.0, 50.0),
    batch_size=1024,  # images per step over all devices (C.1); a whole number of 1 or more
    momentum=0.9,  # Nesterov (C.1); a number in [0, 1)
    # Of the running statistics (the paper is silent; as in pretraining); a number in [0, 1)
    batch_norm_decay=0.9,
    view=dict(CROP_OPTIONS),
    seed=0,  # of the order of the images and the augmentation; a whole number of 0 or more
    # Most steps per grid point, for trials (0: no limit); a whole number of 0 or more
    max_steps=0,
)
RANGES = dict(
    learning_rates=ranges.GRID, epochs=ranges.GRID, batch_size=ranges.whole(1),
    momentum=ranges.MOMENTUM, batch_norm_decay=ranges.MOMENTUM, view=CROP_RANGES,
    seed=ranges.SEED, max_steps=ranges.whole(0))
PROTOCOL = (
    'Semi-supervised evaluation as in appendix C.1 of the paper: encoder and new linear classifier '
    'are trained on the labelled training images with random crop and flip, middle crop in '
    'testing, SGD with Nesterov momentum, no regularisation; learning rate and epochs are chosen '
    'by top-1 on held-out training images, the first of equals, without a refit. Where the paper '
    'is silent: learning rates per 256 images, a cosine to 0 without warm-up as in the '
    "reference's linear evaluation, the classifier starts at zeros, BatchNorm in training mode.")
# Values of the options of `fit` in C.1.
PAPER = dict(learning_rates=(0.01, 0.02, 0.05, 0.1, 0.005), epochs=(30., 50.), batch_size=1024,
             momentum=0.9, max_steps=0)

evaluate = fine_tuned.evaluate


def fit(context: FitContext, *, learning_rates: Sequence[float], epochs: Sequence[float],
        batch_size: int, momentum: float, batch_norm_decay: float, view: Mapping[str, Any],
        seed: int, max_steps: int) -> fine_tuned.Fitted:
  """Fine-tunes with each learning rate and number of epochs; keeps the best on held-out images.

  Args:
    context: labelled training images in front of the encoder, features of the held-out images,
      which are used for the choice, and the grid. Each class must have training images.
    learning_rates: peaks for a batch of 256 images.
    epochs: passes over the training images, one or more values.
    batch_size: images per step over all devices.
    momentum: momentum of Nesterov's method.
    batch_norm_decay: decay of the running BatchNorm statistics, in [0, 1).
    view: `crop_area`, `crop_aspect` and `flip_probability`.
    seed: seed of the order of the images and the augmentation.
    max_steps: largest number of steps per point, for trials; 0 for no limit.

  Raises:
    InputError: classes have no training images, held-out images are unusable, or all points have
      diverged.
  """
  fine_tuned.check('semi_supervised', context, 'top1')
  count, labels = fine_tuned.checked_validation(context, 'top1')
  train, num_classes = context.images, context.num_classes
  validation = functools.partial(context.features, 'validation')
  options = dict(batch_size=batch_size, momentum=momentum, batch_norm_decay=batch_norm_decay,
                 view=dict(view), seed=seed)
  run = fine_tuning.runner(train, num_classes=num_classes, **options)

  def num_steps(point):
    steps = max(1, schedules.num_steps(point['epochs'], train.num_examples, batch_size))
    return min(steps, max_steps) if max_steps else steps

  def train_point(point, timed):
    weights = run(learning_rate=point['learning_rate'], weight_decay=0.,
                  max_steps=num_steps(point), timed=timed)
    return fine_tuned.scores(weights, validation, 'top1'), weights

  points = [dict(learning_rate=rate, epochs=passes) for passes in epochs
            for rate in learning_rates]
  options['max_steps'] = max_steps
  found = grids.search(
      context.grid().having(options=options, validation=labels, train_images=train.num_examples),
      points, train_point, steps=[num_steps(point) for point in points], steps_after=0,
      metric='top1', keep_weights=True)
  return fine_tuned.Fitted(
      found.weights, found.candidates, found.chosen, num_classes,
      dict(options, learning_rates=tuple(learning_rates), epochs=tuple(epochs), metric='top1'),
      train.num_examples, count)


def check(facts: Facts, **_) -> None:
  """Raises InputError for what `fit` would reject, as far as it is known in advance."""
  scoring.check(facts, metric='top1')


def describe(fitted: fine_tuned.Fitted) -> dict[str, Any]:
  """The protocol in words, the choice, all points, options and numbers of images."""
  return fine_tuned.describe(fitted, PROTOCOL, PAPER)
