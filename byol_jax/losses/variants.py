"""The loss with a target other than the paper's, or with small views."""

from collections.abc import Callable
import functools

import chex
import jax
import jax.numpy as jnp

from byol_jax import train_step
from byol_jax.losses import multi_crop, targets
from byol_jax.model import Params
from byol_jax.train_step import Recipe, TrainState


def choose(target: str, statistics: str, small_views: int) -> Callable:
  """The loss function of a run: the paper's, or a variant.

  Args:
    target: one of `targets.TARGETS`.
    statistics: BatchNorm statistics of the moving average, one of `targets.STATISTICS`.
    small_views: number of small views per image.
  """
  target_of = targets.named(target, statistics)
  if target_of is targets.moving_average and not small_views:
    return train_step.loss_fn
  return functools.partial(loss_fn, target_of=target_of)


def loss_fn(online_params: Params, state: TrainState, views: tuple[jax.Array, ...],
            labels: jax.Array | None, recipe: Recipe, *, target_of: Callable):
  """Like `train_step.loss_fn`, with a choice of target and with small views after the large two.

  Args:
    online_params: theta; gradients are taken with respect to it.
    state: everything else.
    views: two arrays [B, H, W, 3] in [0, 1], and any number of small ones [B, h, w, 3].
    labels: int32 [B]; None for unlabelled data, which has no classifier.
    recipe: the parts of the run.
    target_of: one of the functions in `targets`.

  Returns:
    The loss, and (online_state, target_state, scalars).
  """
  large, small = views[:2], views[2:]
  online1, online_state = recipe.model.apply(online_params, state.online_state, large[0], True)
  online2, online_state = recipe.model.apply(online_params, online_state, large[1], True)
  online = online1, online2
  target, target_state = target_of(online, online_state, large, state, recipe)
  losses = recipe.objective(online, target)
  chex.assert_shape(losses, large[0].shape[:1])
  byol_loss = jnp.mean(losses)
  if small:
    byol_loss = multi_crop.with_small_views(
        byol_loss, small, target, online_params, online_state, recipe)
  loss, scalars = train_step.with_classifier(byol_loss, online1, labels)
  return loss, (online_state, target_state, scalars)
