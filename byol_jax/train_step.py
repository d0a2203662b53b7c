"""BYOL in one file: two networks, one loss, one moving average.

Two views of each image pass through the online network (encoder, projector,
predictor) and through the target network. The online network's prediction for one
view regresses the target network's projection of the other. LARS moves the online
parameters; the target parameters follow as a slow moving average. There are no
negatives. Grill et al. 2020, section 3 and appendix J.

The order of operations is the reference implementation's, and the tests hold
three of its updates to ten digits in float64.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from byol_jax import metrics
from byol_jax.distributed import loops, parallel
from byol_jax.encoders import normalization
from byol_jax.losses import multi_crop
from byol_jax.model import Model, Params
from byol_jax.optimizers import lars as optimizers

Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]
Schedule = Callable[[jax.Array], jax.Array]

# What the predictions regress: the projections of the moving average (the paper's
# method), of the online network itself, or the latter with gradients flowing into them.
TARGETS = ('moving_average', 'stop_gradient', 'none')


class TrainState(NamedTuple):
  """Everything that a run carries from step to step; arrays only, no device axis.

  step: int32 [], optimizer steps done; the only clock.
  online_params: theta; what is optimized, and evaluated in the end.
  target_params: xi; the moving average of theta.
  online_state: running BatchNorm statistics of the online network.
  target_state: the same of the target network, which has its own.
  opt_state: the state of LARS: one momentum buffer per parameter.
  """

  step: jax.Array
  online_params: Params
  target_params: Params
  online_state: Params
  target_state: Params
  opt_state: optax.OptState


class Recipe(NamedTuple):
  """The parts of a run that are functions.

  model: the networks.
  views: batch -> the augmented views, each [B, H, W, 3] in [0, 1]: two, then any small ones.
  objective: (online, target) pairs of `model.Outputs` -> loss [B].
  optimizer: gradients -> momentum, without the learning rate.
  learning_rate: step -> learning rate.
  tau: step -> decay of the target parameters.
  target: one of TARGETS. With the last two nothing reads the target parameters,
    which follow nevertheless (Table 19: 'sg' and theta).
  accumulation_steps: parts of a batch that go through the networks one after another,
    for batches that do not fit; 1 for none.
  target_statistics: what BatchNorm of the target network takes, one of
    `normalization.TARGET_STATISTICS`.
  """

  model: Model
  views: Callable[[Batch], tuple[jax.Array, ...]]
  objective: Callable[..., jax.Array]
  optimizer: optax.GradientTransformation
  learning_rate: Schedule
  tau: Schedule
  target: str
  accumulation_steps: int = 1
  target_statistics: str = 'batch'


def init_state(key: jax.Array, images: jax.Array, recipe: Recipe) -> TrainState:
  """The state before the first step.

  Args:
    key: owned by this function. Online and target parameters are drawn from
      different keys, as in the reference.
    images: [B, H, W, 3], of which only the shape matters.
    recipe: the parts of the run.
  """
  online_key, target_key = jax.random.split(key)
  online_params, online_state = recipe.model.init(online_key, images)
  target_params, target_state = recipe.model.init(target_key, images)
  return TrainState(jnp.zeros((), jnp.int32), online_params, target_params, online_state,
                    target_state, recipe.optimizer.init(online_params))


def loss_fn(online_params: Params, state: TrainState, views: tuple[jax.Array, ...],
            labels: jax.Array | None, recipe: Recipe):
  """The loss of a batch: the objective plus the online classifier's.

  Args:
    online_params: theta, with respect to which gradients are taken.
    state: everything else.
    views: two arrays [B, H, W, 3] in [0, 1], and any small ones.
    labels: int32 [B]; None for unlabelled data, which has no classifier.
    recipe: the parts of the run.

  Returns:
    The loss, and (online_state, target_state, scalars).
  """
  online_state, target_state = state.online_state, state.target_state
  online, target = [], []
  # Each view is a forward pass of its own: BatchNorm sees one view at a time.
  for view in views[:2]:
    outputs, online_state = recipe.model.apply(online_params, online_state, view, True)
    online.append(outputs)
  if recipe.target == 'moving_average':
    # The target too runs on the statistics of the batch. The scope names it in profiles.
    of_batch = recipe.target_statistics == 'batch'
    if not of_batch:
      target_state = normalization.averaged_statistics(
          target_state, online_state, state.step, recipe.tau(state.step))
    with jax.named_scope('target'):
      for view in views[:2]:
        outputs, target_state = recipe.model.apply(
            state.target_params, target_state, view, of_batch)
        target.append(outputs)
  else:
    target = online
  if recipe.target != 'none':
    target = jax.lax.stop_gradient(target)

  byol_loss = jnp.mean(recipe.objective(online, target))
  if views[2:]:
    byol_loss = multi_crop.with_small_views(
        byol_loss, views[2:], target, online_params, online_state, recipe)
  scalars = dict(byol_loss=byol_loss, projections=metrics.moments(
      jax.lax.stop_gradient(online[0].projection)))
  loss = byol_loss
  if labels is not None:
    classifier_loss, accuracies = _classify(online[0].logits, labels)
    loss = loss + classifier_loss
    scalars |= dict(classifier_loss=classifier_loss, **accuracies)
  return loss, (online_state, target_state, dict(loss=loss, **scalars))


def _classify(logits: jax.Array, labels: jax.Array):
  """The online classifier's cross-entropy and accuracies on view 1."""
  chex.assert_equal_shape_prefix([logits, labels], 1)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  accuracies = {f'top{k}': jnp.mean(metrics.top_k_correct(logits, labels, k), dtype=jnp.float32)
                for k in (1, 5) if k < logits.shape[-1]}
  return jnp.mean(cross_entropy), accuracies


def compute_gradients(state: TrainState, batch: Batch, recipe: Recipe):
  """Gradients over the global batch, new BatchNorm statistics and scalars.

  `batch` holds this device's share; the results are averaged over all devices. BatchNorm
  sees one part of an accumulated batch at a time; its running averages move with each.
  """
  def of_part(states, part):
    online_state, target_state = states
    views = recipe.views(part)
    gradients, (*states, scalars) = jax.grad(loss_fn, has_aux=True)(
        state.online_params, state._replace(online_state=online_state, target_state=target_state),
        views, part.get('labels'), recipe)
    return (gradients, scalars), tuple(states)

  means, states = loops.mean_over_parts(
      of_part, (state.online_state, state.target_state), batch, recipe.accumulation_steps)
  gradients, scalars = parallel.mean_over_devices(means)
  return gradients, *states, scalars


def ema_update(target_params: Params, online_params: Params, tau: jax.Array) -> Params:
  """xi <- tau xi + (1 - tau) theta, written so that xi = theta stays exactly there."""
  return jax.tree.map(
      lambda target, online: target + jnp.asarray(1. - tau, target.dtype) * (online - target),
      target_params, online_params)


def train_step(state: TrainState, batch: Batch, recipe: Recipe) -> tuple[TrainState, Scalars]:
  """One step of BYOL; runs on every device under `parallel.pmap_step`.

  Args:
    state: replicated, donated.
    batch: this device's share of the batch, as `augment.views.random_views` takes it, with
      `labels` int32 [B] for labelled data.
    recipe: the parts of the run.

  Returns:
    The new state and the step's scalars, the same on all devices.
  """
  gradients, online_state, target_state, scalars = compute_gradients(state, batch, recipe)
  learning_rate, tau = recipe.learning_rate(state.step), recipe.tau(state.step)

  momentum, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.online_params)
  online_params = optimizers.apply(state.online_params, momentum, learning_rate)
  target_params = ema_update(state.target_params, online_params, tau)

  new_state = TrainState(state.step + 1, online_params, target_params, online_state,
                         target_state, opt_state)
  return new_state, dict(scalars, learning_rate=learning_rate, tau=tau)
