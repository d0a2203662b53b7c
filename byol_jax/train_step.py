"""BYOL in one file: two networks, one loss, one moving average.

Two views of each image pass through the online network (encoder, projector,
predictor) and through the target network. The online network's prediction for one
view regresses the target network's projection of the other. The optimizer (LARS) moves the online
parameters; the target parameters follow as a slow moving average. There are no
negatives. Grill et al. 2020, section 3 and appendix J.

The order of operations is that of the reference implementation. The tests compare
three of its updates to ten digits in float64.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from byol_jax import metrics
from byol_jax.distributed import loops, parallel
from byol_jax.model import Model, Outputs, Params

Batch = Mapping[str, jax.Array]
Scalars = dict[str, jax.Array]
Schedule = Callable[[jax.Array], jax.Array]


class TrainState(NamedTuple):
  """Everything that a run carries from step to step: only arrays, with no device axis.

  step: int32 [], optimizer steps done; the only clock.
  online_params: theta; these are optimized, and evaluated at the end.
  target_params: xi; the moving average of theta.
  online_state: running BatchNorm statistics of the online network.
  target_state: the target network's own running statistics.
  opt_state: the optimizer's state; that of LARS is one momentum buffer per parameter.
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
  loss: a function like `loss_fn`, which is the paper's; others are in `losses`.
  optimizer: gradients -> momentum; does not apply the learning rate.
  learning_rate: step -> learning rate.
  tau: step -> decay of the target parameters.
  accumulation_steps: number of parts of a batch that go through the networks one after
    another, for batches that do not fit in memory; 1 processes the batch at once.
  """

  model: Model
  views: Callable[[Batch], tuple[jax.Array, ...]]
  objective: Callable[..., jax.Array]
  loss: Callable[..., Any]
  optimizer: optax.GradientTransformation
  learning_rate: Schedule
  tau: Schedule
  accumulation_steps: int = 1


def init_state(key: jax.Array, images: jax.Array, recipe: Recipe) -> TrainState:
  """The state before the first step.

  Args:
    key: used only by this function. Online and target parameters are drawn from
      different keys, as in the reference.
    images: [B, H, W, 3]; only the shape matters.
    recipe: the parts of the run.
  """
  online_key, target_key = jax.random.split(key)
  online_params, online_state = recipe.model.init(online_key, images)
  target_params, target_state = recipe.model.init(target_key, images)
  return TrainState(jnp.zeros((), jnp.int32), online_params, target_params, online_state,
                    target_state, recipe.optimizer.init(online_params))


def loss_fn(online_params: Params, state: TrainState, views: tuple[jax.Array, ...],
            labels: jax.Array | None, recipe: Recipe):
  """The loss of a batch: BYOL's loss plus the online classifier's (paper, section 3.1).

  Args:
    online_params: theta; gradients are taken with respect to it.
    state: everything else.
    views: two arrays [B, H, W, 3] in [0, 1].
    labels: int32 [B]; None for unlabelled data, which has no classifier.
    recipe: the parts of the run.

  Returns:
    The loss, and (online_state, target_state, scalars).
  """
  view1, view2 = views
  network = recipe.model.apply
  # Each view has its own forward pass: BatchNorm sees one view at a time.
  online1, online_state = network(online_params, state.online_state, view1, True)
  online2, online_state = network(online_params, online_state, view2, True)
  # The target also uses the statistics of the batch. The scope names it in profiles.
  with jax.named_scope('target'):
    target1, target_state = network(state.target_params, state.target_state, view1, True)
    target2, target_state = network(state.target_params, target_state, view2, True)
  target = jax.lax.stop_gradient((target1, target2))
  losses = recipe.objective((online1, online2), target)
  chex.assert_shape(losses, view1.shape[:1])
  byol_loss = jnp.mean(losses)
  loss, scalars = with_classifier(byol_loss, online1, labels)
  return loss, (online_state, target_state, scalars)


def with_classifier(byol_loss: jax.Array, online1: Outputs, labels: jax.Array | None
                    ) -> tuple[jax.Array, Scalars]:
  """Adds the online classifier's cross-entropy on view 1; it does not train the encoder.

  Returns:
    The sum and the scalars of the step; the moments of the projections among them are arrays.
  """
  scalars = dict(byol_loss=byol_loss, projections=metrics.moments(
      jax.lax.stop_gradient(online1.projection)))
  if labels is None:
    return byol_loss, dict(loss=byol_loss, **scalars)
  logits = online1.logits
  chex.assert_equal_shape_prefix([logits, labels], 1)
  cross_entropy = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
  accuracies = {f'top{k}': jnp.mean(metrics.top_k_correct(logits, labels, k), dtype=jnp.float32)
                for k in (1, 5) if k < logits.shape[-1]}
  loss = byol_loss + cross_entropy
  return loss, dict(loss=loss, **scalars, classifier_loss=cross_entropy, **accuracies)


def compute_gradients(state: TrainState, batch: Batch, recipe: Recipe):
  """Computes gradients over the global batch, new BatchNorm statistics and scalars.

  `batch` is this device's share; the results are averaged over all devices. With accumulation
  BatchNorm sees one part of the batch at a time and updates its running averages for each part.
  """
  def of_part(states, part):
    online_state, target_state = states
    views = recipe.views(part)
    gradients, (*states, scalars) = jax.grad(recipe.loss, has_aux=True)(
        state.online_params, state._replace(online_state=online_state, target_state=target_state),
        views, part.get('labels'), recipe)
    return (gradients, scalars), tuple(states)

  means, states = loops.mean_over_parts(
      of_part, (state.online_state, state.target_state), batch, recipe.accumulation_steps)
  gradients, scalars = parallel.mean_over_devices(means)
  return gradients, *states, scalars


def ema_update(target_params: Params, online_params: Params, tau: jax.Array) -> Params:
  """xi <- tau xi + (1 - tau) theta, written so that xi = theta stays exactly equal."""
  return jax.tree.map(
      lambda target, online: target + jnp.asarray(1. - tau, target.dtype) * (online - target),
      target_params, online_params)


def apply_momentum(params: Params, momentum: Params, learning_rate: jax.Array) -> Params:
  """params - learning_rate * momentum, in the dtype of the parameters."""
  return jax.tree.map(lambda p, m: p - jnp.asarray(learning_rate, p.dtype) * m, params, momentum)


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

  # Some optimizers need the learning rate for their momentum; it is applied below.
  momentum, opt_state = optax.with_extra_args_support(recipe.optimizer).update(
      gradients, state.opt_state, state.online_params, learning_rate=learning_rate)
  online_params = apply_momentum(state.online_params, momentum, learning_rate)
  target_params = ema_update(state.target_params, online_params, tau)

  new_state = TrainState(state.step + 1, online_params, target_params, online_state,
                         target_state, opt_state)
  return new_state, dict(scalars, learning_rate=learning_rate, tau=tau)
