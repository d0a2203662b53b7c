"""Trains an encoder together with a linear classifier.

The cross-entropy on randomly cropped and flipped images (`losses`) is minimised by SGD with
Nesterov momentum. With gradient g of the mean loss, parameters p, l2 coefficient w and momentum m,
step k of K is

    u = g + w p       (w only on weights: neither biases nor normalisation)
    v = m v + u
    p = p - (learning_rate / 2) (1 + cos(pi k / K)) (u + m v).

The paper does not give a schedule for the learning rate of fine-tuning: the cosine to 0 without
warm-up is the schedule of the reference's linear evaluation. BatchNorm is in training mode, with
the statistics of the batch over all devices, and its running averages are updated.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import functools
import time
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import model
from byol_jax.distributed import parallel
from byol_jax.evaluation.contract import Images
from byol_jax.input_pipeline import prefetch
from byol_jax.optimizers.lars import is_adapted
from byol_jax.train_step import apply_momentum

CLASSIFIER = 'classifier'
# The speed is measured over TIMED steps, after UNTIMED steps in which programs are compiled.
TIMED, UNTIMED = 5, 3
# The counter of a running average is set to this value, for which the bias correction vanishes.
SETTLED = 2 ** 30


class Weights(NamedTuple):
  """The trained weights, as Haiku trees on the host.

  params: parameters of the encoder, and of the module `classifier`: w [D, C] and b [C].
  state: the running BatchNorm statistics of the encoder.
  """

  params: model.Params
  state: model.Params


class _Carry(NamedTuple):
  """The state that is passed from step to step; it has the schedule, so a grid compiles once."""

  step: chex.Array
  learning_rate: chex.Array
  weight_decay: chex.Array
  max_steps: chex.Array
  weights: Weights
  velocity: model.Params


def with_new_classifier(images: Images, num_classes: int) -> Weights:
  """The images' encoder, its running averages `continued`, and a classifier of zeros."""
  params, state = images.encoder.variables
  dimension = jax.eval_shape(images.encoder.encode, images.encoder.variables, jnp.zeros(
      (1, images.image_size, images.image_size, 3))).shape[-1]
  classifier = dict(w=np.zeros((dimension, num_classes), np.float32),
                    b=np.zeros(num_classes, np.float32))
  return Weights(dict(model.encoder_only(params), **{CLASSIFIER: classifier}),
                 continued(model.encoder_only(state)))


def continued(state: model.Params) -> model.Params:
  """BatchNorm statistics that continue from their values: average <- d average + (1 - d) batch.

  Haiku divides its running sums by 1 - d^n after n updates. Sums made with one decay d and
  divided for another d would no longer be averages, unless n is large for both.
  """
  return {module: dict(values, hidden=values['average'],
                       counter=np.full_like(values['counter'], SETTLED))
          if {'average', 'hidden', 'counter'} <= values.keys() else dict(values)
          for module, values in state.items()}


def losses(logits: chex.Array, labels: chex.Array) -> chex.Array:
  """The loss of each image, [B].

  Args:
    logits: [B, C].
    labels: int [B] for the cross-entropy of the softmax. Or int [B, C] in -1, 0, 1 for the sum
      over the classes of the cross-entropy of the sigmoid, without the classes with -1. It is a
      sum, as in linear transfer, so that gradients are about as large as for the softmax.
  """
  if labels.ndim == 1:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  chex.assert_equal_shape([logits, labels])
  each = optax.sigmoid_binary_cross_entropy(logits, labels)
  return jnp.sum(jnp.where(labels < 0, 0., each), axis=1)


def step_function(encode: Callable[..., Any], views: Callable[..., jax.Array], *,
                  momentum: float, devices: Sequence[jax.Device]) -> Callable[..., Any]:
  """Compiles the training step for any number of calls of `train`.

  Args:
    encode: pure function of (params, state, views) -> (embeddings [B, D], state), in
      training mode.
    views: batch -> augmented images [B, H, W, 3] in [0, 1].
    momentum: momentum of Nesterov's method.
    devices: devices of this host.
  """
  return parallel.pmap_step(functools.partial(
      _step, encode=encode, views=views, optimizer=optax.trace(decay=momentum, nesterov=True)),
      devices)


def train(step_fn: Callable[..., Any], start: Weights, batches: Iterable[Mapping[str, Any]], *,
          learning_rate: float, weight_decay: float, max_steps: int,
          devices: Sequence[jax.Device], timed: Callable[[float], None] | None = None
          ) -> Weights | None:
  """Trains encoder and classifier.

  Args:
    step_fn: the result of `step_function` for the same devices.
    start: the weights before the first step; they are not changed.
    batches: labelled training batches of this host, one for each step.
    learning_rate: learning rate of the first step, for a batch of this size.
    weight_decay: l2 coefficient on weights other than biases and normalisation.
    max_steps: K, the number of steps of the cosine and of `batches`.
    devices: devices of this host.
    timed: called once with the seconds per step, after the first few steps.

  Returns:
    The weights after all steps; None if the training has diverged.
  """
  carry = parallel.replicate(
      _Carry(np.int32(0), np.float32(learning_rate), np.float32(weight_decay),
             np.int32(max_steps), start, jax.tree.map(np.zeros_like, start.params)), devices)
  began = 0.
  for step, batch in enumerate(prefetch.to_devices(iter(batches), devices), 1):
    carry, loss = step_fn(carry, batch)
    if timed and step in (UNTIMED, UNTIMED + TIMED):
      jax.block_until_ready(loss)
      if step > UNTIMED:
        timed((time.monotonic() - began) / TIMED)
      began = time.monotonic()
    # Only from time to time, because the host waits for the devices here.
    if step % -(-max_steps // 20) == 0 and not np.isfinite(parallel.fetch(loss)):
      return None
  weights = parallel.fetch(carry.weights)
  finite = all(np.isfinite(x).all() for x in jax.tree.leaves(weights))
  return weights if finite else None


def _step(carry: _Carry, batch: Mapping[str, jax.Array], *, encode, views, optimizer) -> Any:
  """One step of the module's equations; returns the new carry and the loss."""
  params, state = carry.weights

  def loss_fn(params):
    embeddings, new_state = encode(params, state, views(batch))
    logits = embeddings @ params[CLASSIFIER]['w'] + params[CLASSIFIER]['b']
    return jnp.mean(losses(logits, batch['labels'])), new_state

  (loss, state), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
  loss, gradients = parallel.mean_over_devices((loss, gradients))
  gradients = jax.tree.map(
      lambda g, p, decayed: g + carry.weight_decay.astype(p.dtype) * p if decayed else g,
      gradients, params, is_adapted(params))
  updates, trace = optimizer.update(gradients, optax.TraceState(carry.velocity))
  rate = carry.learning_rate / 2 * (1 + jnp.cos(jnp.pi * carry.step / carry.max_steps))
  weights = Weights(apply_momentum(params, updates, rate), state)
  return carry._replace(step=carry.step + 1, weights=weights, velocity=trace.trace), loss


def runner(images: Images, *, num_classes: int, batch_norm_decay: float, batch_size: int,
           momentum: float, view: Mapping[str, Any], seed: int) -> Callable[..., Weights | None]:
  """Prepares fine-tuning of the images' encoder, which is compiled once.

  Args:
    images: labelled training images in front of the encoder.
    num_classes: number of classes C.
    batch_norm_decay: decay of the running BatchNorm statistics.
    batch_size: images per step over all devices.
    momentum: momentum of Nesterov's method.
    view: `crop_area`, `crop_aspect` and `flip_probability`.
    seed: seed of the order of the images and the augmentation.

  Returns:
    A function of `learning_rate`, `weight_decay`, `max_steps` and `timed`, as in `train`,
    which starts from the beginning in every call. Its learning rate is per 256 images.
  """
  devices = jax.local_devices()
  views = images.single_views(view, seed)
  step_fn = step_function(images.encoder.training(batch_norm_decay), views, momentum=momentum,
                          devices=devices)
  start = with_new_classifier(images, num_classes)

  def run(*, learning_rate, weight_decay, max_steps, timed=None):
    batches = images.batches([view], seed=seed, batch_size=batch_size, first_step=0,
                             last_step=max_steps)
    return train(step_fn, start, batches, learning_rate=learning_rate * batch_size / 256,
                 weight_decay=weight_decay, max_steps=max_steps, devices=devices, timed=timed)

  return run
