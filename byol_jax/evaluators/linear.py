"""Linear evaluation as in the paper (appendix C.1).

A linear classifier on the frozen encoder is trained on randomly cropped and flipped
images with SGD, Nesterov momentum, no regularisation, and a learning rate chosen on
held-out training images. The classifiers for all learning rates are trained together
in one pass over the data, because they share the work of the encoder.

What the paper does not specify is taken from the reference: the learning rate follows a cosine
to 0 without warm-up, and is given per 256 images.
"""

from collections.abc import Mapping, Sequence
import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import ranges
from byol_jax.augment.views import CROP_OPTIONS, CROP_RANGES
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.evaluation.contract import EvalContext, Features, FitContext, Images, check_features
from byol_jax.evaluation.scoring import ACCURACY, accuracy, label_ranks
from byol_jax.input_pipeline import prefetch

TITLE, METRICS, MAIN_METRIC = 'linear (C.1)', ACCURACY, 'top1'
IN_TABLE = ('top5',)
OPTIONS = dict(
    # Per 256 images; one is chosen (C.1); one or more numbers above 0, each once
    learning_rates=(0.4, 0.3, 0.2, 0.1, 0.05),
    epochs=80.0,  # passes over the training images (C.1); a number above 0
    batch_size=1024,  # images per step over all devices (C.1); a whole number of 1 or more
    momentum=0.9,  # Nesterov (C.1); a number in [0, 1)
    view=dict(CROP_OPTIONS),
    seed=0,  # of the order of the images and the augmentation; a whole number of 0 or more
    # Train again on training and held-out images together (not in the paper); True or False
    refit=False,
)
RANGES = dict(
    learning_rates=ranges.GRID, epochs=ranges.POSITIVE, batch_size=ranges.whole(1),
    momentum=ranges.MOMENTUM, view=CROP_RANGES, seed=ranges.SEED, refit=ranges.FLAG)
PROTOCOL = (
    'Linear evaluation as in appendix C.1 of the paper: linear classifier on the frozen encoder, '
    'BatchNorm in evaluation mode, random crop and flip in training, middle crop in testing, SGD '
    'with Nesterov momentum, no regularisation; the learning rate is chosen by top-1 on held-out '
    'training images, the first of equals. Cosine schedule without warm-up and learning rates per '
    '256 images, as in the reference.')
# Values of the options of `fit` in C.1.
PAPER = dict(learning_rates=(0.4, 0.3, 0.2, 0.1, 0.05), epochs=80., batch_size=1024, momentum=0.9,
             refit=False)
REFIT = (' The classifier was trained once more on training and held-out images together with the '
         'learning rate chosen; this refit is not in the paper.')


class Classifiers(NamedTuple):
  """One classifier per learning rate. weights: float32 [L, D, C]; bias: float32 [L, C]."""

  weights: chex.Array
  bias: chex.Array


class Fitted(NamedTuple):
  """The classifier of the chosen learning rate, L = 1, and how it was chosen.

  candidates: (learning rate, validation accuracies), in the order given.
  chosen: an index into them.
  """

  classifier: Classifiers
  candidates: tuple[tuple[float, dict[str, float]], ...]
  chosen: int
  options: Mapping[str, Any]
  train_images: int
  validation_images: int


def fit(context: FitContext, *, learning_rates: Sequence[float], epochs: float, batch_size: int,
        momentum: float, view: Mapping[str, Any], seed: int, refit: bool) -> Fitted:
  """Trains one classifier per learning rate and keeps the best on held-out images.

  Args:
    context: labelled training images in front of the encoder, and labelled features of the
      held-out images, on which the learning rate is chosen.
    learning_rates: peaks for a batch of 256 images; {0.4, 0.3, 0.2, 0.1, 0.05} in the
      paper.
    epochs: number of passes over the training images; 80 in the paper.
    batch_size: images per step over all devices; 1024 in the paper.
    momentum: momentum of Nesterov's method; 0.9 in the paper.
    view: `crop_area`, `crop_aspect` and `flip_probability`.
    seed: seed of the order of the images and the augmentation.
    refit: whether to train again on training and held-out images; not in the paper.

  Raises:
    InputError: features are unusable, or all classifiers have diverged.
  """
  validation, num_classes = context.features('validation'), context.num_classes
  check_features('validation', validation, num_classes)
  options = dict(epochs=epochs, batch_size=batch_size, momentum=momentum, view=view, seed=seed)
  images = context.images
  classifiers = _train(images, learning_rates, num_classes, **options)
  scores = [_accuracy(_only(classifiers, i), validation) for i in range(len(learning_rates))]
  if not any(np.isfinite(_only(classifiers, i).weights).all() for i in range(len(scores))):
    raise InputError(f'All classifiers of the linear evaluation have diverged; give smaller '
                     f'learning_rates than {tuple(learning_rates)}.')
  chosen = int(np.argmax([score['top1'] for score in scores]))
  classifier = _only(classifiers, chosen)
  if refit:
    images = images.with_validation()
    classifier = _train(images, learning_rates[chosen:chosen + 1], num_classes, **options)
  return Fitted(classifier, tuple(zip(learning_rates, scores)), chosen,
                dict(options, learning_rates=tuple(learning_rates), refit=refit),
                images.num_examples, len(validation.labels))


def evaluate(fitted: Fitted, context: EvalContext) -> dict[str, float]:
  """Accuracy in [0, 1] on the test images: 'top1' and, for more than five classes, 'top5'.

  Raises:
    InputError: the test features are unusable.
  """
  test = context.features('test')
  check_features('test', test, fitted.classifier.bias.shape[-1])
  return _accuracy(fitted.classifier, test)


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice, options and numbers of images."""
  rate, score = fitted.candidates[fitted.chosen]
  rates = [r for r, _ in fitted.candidates]
  return dict(
      differs_from_paper=[f'{key} {fitted.options[key]} ({value})' for key, value in PAPER.items()
                          if fitted.options[key] != value],
      chosen_at_edge=len(rates) > 1 and rate in (min(rates), max(rates)),
      protocol=PROTOCOL + (REFIT if fitted.options['refit'] else ''),
      learning_rate=rate, validation_top1=score['top1'],
      candidates=[dict(learning_rate=r, **s) for r, s in fitted.candidates],
      train_images=fitted.train_images, validation_images=fitted.validation_images,
      **fitted.options)


def _train(images: Images, learning_rates: Sequence[float], num_classes: int, *, epochs: float,
           batch_size: int, momentum: float, view: Mapping[str, Any], seed: int) -> Classifiers:
  """Trains the classifiers for all epochs and returns them on the host."""
  devices = jax.local_devices()
  max_steps = max(1, int(epochs * images.num_examples // batch_size))
  views = images.single_views(view, seed)
  encoder = images.encoder
  dimension = jax.eval_shape(encoder.encode, encoder.variables, jnp.zeros(
      (1, images.image_size, images.image_size, 3))).shape[-1]
  count = len(learning_rates)
  start = Classifiers(jnp.zeros((count, dimension, num_classes)), jnp.zeros((count, num_classes)))
  optimizer = optax.trace(decay=momentum, nesterov=True)
  carry = parallel.replicate(
      (jnp.zeros((), jnp.int32), start, optimizer.init(start), encoder.variables), devices)
  schedule = optax.cosine_decay_schedule(batch_size / 256, max_steps)
  step_fn = parallel.pmap_step(functools.partial(
      _step, encode=encoder.encode, views=views, optimizer=optimizer,
      learning_rates=jnp.array(learning_rates), schedule=schedule), devices)
  batches = images.batches([view], seed=seed, batch_size=batch_size, first_step=0,
                           last_step=max_steps)
  began = time.monotonic()
  for step, batch in enumerate(prefetch.to_devices(batches, devices), 1):
    carry, loss = step_fn(carry, batch)
    if step % -(-max_steps // 10) == 0 or step == max_steps:
      speed = step * batch_size / (time.monotonic() - began)
      parallel.print_once(f'linear evaluation: step {step}/{max_steps}  best loss '
                          f'{float(np.nanmin(parallel.fetch(loss))):.4f}  {speed:.0f} images/s')
  return parallel.fetch(carry[1])


def _step(carry: Any, batch: Mapping[str, jax.Array], *, encode, views, optimizer,
          learning_rates: chex.Array, schedule) -> Any:
  """One step of all classifiers; returns the new carry and their losses [L]."""
  step, classifiers, momentum, variables = carry
  embeddings = encode(variables, views(batch)).astype(jnp.float32)

  def loss_fn(classifiers):
    losses = jax.vmap(lambda logits: optax.softmax_cross_entropy_with_integer_labels(
        logits, batch['labels']).mean())(_logits(classifiers, embeddings))
    # The classifiers share no weights, so the gradient of the sum is the gradient of each.
    return losses.sum(), losses

  gradients, losses = jax.grad(loss_fn, has_aux=True)(classifiers)
  gradients, losses = parallel.mean_over_devices((gradients, losses))
  updates, momentum = optimizer.update(gradients, momentum)
  rates = schedule(step) * learning_rates
  classifiers = Classifiers(
      classifiers.weights - rates[:, None, None] * updates.weights,
      classifiers.bias - rates[:, None] * updates.bias)
  return (step + 1, classifiers, momentum, variables), losses


def _logits(classifiers: Classifiers, embeddings: chex.Array) -> chex.Array:
  """Logits [L, B, C] of embeddings [B, D]."""
  return jnp.einsum('bd,ldc->lbc', embeddings, classifiers.weights) + classifiers.bias[:, None]


def _only(classifiers: Classifiers, index: int) -> Classifiers:
  return jax.tree.map(lambda x: x[index:index + 1], classifiers)


def _accuracy(classifier: Classifiers, features: Features) -> dict[str, float]:
  """The accuracy of a single classifier, L = 1."""
  logits = features.embeddings @ classifier.weights[0] + classifier.bias[0]
  return accuracy(label_ranks(logits, features.labels), classifier.bias.shape[-1])
