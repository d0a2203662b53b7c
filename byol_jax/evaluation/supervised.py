"""Trains the same encoder with labels, as a baseline for representations in tables.

The training uses cross-entropy (`fine_tuning.losses`) on randomly cropped and flipped images, and
SGD with Nesterov momentum and a cosine learning rate, like the paper's supervised baselines
(appendix C.1; RandAugment and label smoothing are left out). The resulting encoder is evaluated
like every other encoder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from byol_jax import schedules
from byol_jax.errors import InputError
from byol_jax.evaluation import fine_tuning
from byol_jax.model import Model, encoder_only


def train(networks: Model, views: Callable[[Mapping[str, jax.Array]], jax.Array],
          batches: Callable[..., Iterator[Mapping[str, Any]]], num_examples: int, *,
          image_size: int, seed: int, epochs: float, batch_size: int, base_learning_rate: float,
          momentum: float, weight_decay: float, devices: Sequence[jax.Device]
          ) -> fine_tuning.Weights:
  """Trains encoder and classifier from random initialisation, as in `fine_tuning.train`.

  Args:
    networks: the model; its projector and predictor are not used.
    views: batch -> augmented images [B, H, W, 3] in [0, 1].
    batches: (seed, batch_size, first_step, last_step) -> labelled training batches.
    num_examples: number of training images over all hosts.
    image_size: side of the views in pixels.
    seed: seed of the parameters and of the order of the images.
    epochs: number of passes over the images.
    batch_size: images per step over all devices.
    base_learning_rate: the peak for a batch of 256; followed by a cosine to 0, without warm-up.
    momentum: momentum of Nesterov's method.
    weight_decay: l2 coefficient on all weights except biases and normalisation.
    devices: devices of this host.

  Raises:
    InputError: the training has diverged.
  """
  max_steps = max(1, schedules.num_steps(epochs, num_examples, batch_size))
  params, state = jax.jit(networks.init)(
      jax.random.key(seed), jnp.zeros((2, image_size, image_size, 3)))
  start = fine_tuning.Weights(
      dict(encoder_only(params), classifier=params['classifier']), encoder_only(state))
  trained = fine_tuning.train(
      fine_tuning.step_function(networks.encode_in_training, views, momentum=momentum,
                                devices=devices),
      start, batches(seed=seed, batch_size=batch_size, first_step=0, last_step=max_steps),
      learning_rate=base_learning_rate * batch_size / 256, weight_decay=weight_decay,
      max_steps=max_steps, devices=devices)
  if trained is None:
    raise InputError(f'The supervised encoder has diverged with supervised.base_learning_rate '
                     f'{base_learning_rate}; set it to a smaller value.')
  return trained
