"""The same encoder trained with labels: what a table of representations is held against.

Cross-entropy on randomly cropped and flipped images, SGD with Nesterov momentum and
a cosine learning rate, as the paper trains its supervised baselines (appendix C.1;
RandAugment and label smoothing are left out). The result is an encoder, judged like
every other by the evaluators.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from byol_jax import input_pipeline, optimizers, parallel
from byol_jax.model import Model, Params


class Trained(NamedTuple):
  """Parameters and BatchNorm statistics [as Haiku trees], on the host."""

  params: Params
  state: Params


def train(networks: Model, views: Callable[[Mapping[str, jax.Array]], jax.Array],
          batches: Callable[..., Iterator[Mapping[str, Any]]], num_examples: int, *,
          image_size: int, seed: int, epochs: float, batch_size: int, base_learning_rate: float,
          momentum: float, weight_decay: float, devices: Sequence[jax.Device]) -> Trained:
  """Trains encoder and classifier from random initialisation.

  Args:
    networks: the model; its projector and predictor take no part.
    views: batch -> augmented images [B, H, W, 3] in [0, 1].
    batches: (seed, batch_size, first_step, last_step) -> labelled training batches.
    num_examples: training images over all hosts.
    image_size: side of the views in pixels.
    seed: of the parameters and of the order of the images.
    epochs: passes over the images.
    batch_size: images per step over all devices.
    base_learning_rate: the peak for a batch of 256; then a cosine to 0, no warm-up.
    momentum: of Nesterov's method.
    weight_decay: l2 coefficient on all weights but biases and normalisation.
    devices: of this host.
  """
  max_steps = max(1, int(epochs * num_examples // batch_size))
  schedule = optax.cosine_decay_schedule(base_learning_rate * batch_size / 256, max_steps)
  optimizer = optax.chain(
      optax.add_decayed_weights(weight_decay, mask=optimizers.is_adapted),
      optax.sgd(schedule, momentum=momentum, nesterov=True))
  params, state = jax.jit(networks.init)(
      jax.random.key(seed), jnp.zeros((2, image_size, image_size, 3)))
  carry = parallel.replicate((params, state, optimizer.init(params)), devices)
  step = parallel.pmap_step(functools.partial(
      _step, networks=networks, views=views, optimizer=optimizer), devices)
  host_batches = batches(seed=seed, batch_size=batch_size, first_step=0, last_step=max_steps)
  for batch in input_pipeline.to_devices(host_batches, devices):
    carry = step(carry, batch)
  params, state, _ = parallel.fetch(carry)
  return Trained(params, state)


def _step(carry: Any, batch: Mapping[str, jax.Array], *, networks, views, optimizer) -> Any:
  params, state, opt_state = carry

  def loss_fn(params):
    outputs, new_state = networks.apply(params, state, views(batch), True)
    # Not outputs.logits: there the classifier is kept from teaching the encoder.
    classifier = params['classifier']
    logits = outputs.embedding @ classifier['w'] + classifier['b']
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch['labels'])
    return jnp.mean(losses), new_state

  gradients, state = jax.grad(loss_fn, has_aux=True)(params)
  updates, opt_state = optimizer.update(parallel.mean_over_devices(gradients), opt_state, params)
  return optax.apply_updates(params, updates), state, opt_state
