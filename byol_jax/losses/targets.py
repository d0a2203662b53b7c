"""The targets that the predictions regress: the paper's target network, its ablations, and EMAN.

Each target is a function (online, online_state, views, state, recipe) -> (target, target_state).
`online` and `target` are pairs of `model.Outputs`, one for each of the two `views`
[B, H, W, 3]; `state` is the `TrainState`, `online_state` the state of the online network after
its passes in this step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def moving_average(online, online_state, views, state, recipe):
  """The projections of the moving average, with the statistics of the batch (section 3.1)."""
  del online, online_state
  return _passes(views, state.target_params, state.target_state, recipe, of_batch=True)


def with_averaged_statistics(online, online_state, views, state, recipe):
  """The same, with a moving average of the online network's statistics (EMAN, arXiv 2101.08482)."""
  del online
  averaged = averaged_statistics(state.target_state, online_state, state.step,
                                 recipe.tau(state.step))
  return _passes(views, state.target_params, averaged, recipe, of_batch=False)


def stop_gradient(online, online_state, views, state, recipe):
  """The online network's own projections, without gradients (Table 19, 'sg')."""
  del online_state, views, recipe
  return jax.lax.stop_gradient(online), state.target_state


def none(online, online_state, views, state, recipe):
  """The online network's own projections, with gradients (Table 19, theta)."""
  del online_state, views, recipe
  return online, state.target_state


# The targets by `train.target`, ...
TARGETS = dict(moving_average=moving_average, stop_gradient=stop_gradient, none=none)
# ... and the variants of the first one by `train.target_statistics`.
STATISTICS = dict(batch=moving_average, moving_average=with_averaged_statistics)


def named(target: str, statistics: str) -> Callable:
  """The function for a name in TARGETS and a name in STATISTICS."""
  return STATISTICS[statistics] if target == 'moving_average' else TARGETS[target]


def _passes(views, params, network_state, recipe, *, of_batch: bool):
  outputs = []
  with jax.named_scope('target'):
    for view in views:
      one, network_state = recipe.model.apply(params, network_state, view, of_batch)
      outputs.append(one)
  return jax.lax.stop_gradient(tuple(outputs)), network_state


def averaged_statistics(target, online, step: jax.Array, tau: jax.Array):
  """Moves the target's BatchNorm averages towards the online network's; at step 0 copies them.

  Args:
    target: Haiku state of the target network.
    online: Haiku state of the online network, after its passes in this step.
    step: optimizer steps already done, int32 [].
    tau: decay, the same as for the parameters. With accumulation it applies to each part.
  """
  rate = 1. - jnp.where(step == 0, 0., tau)
  # Counters are integers; only the averages are read.
  return jax.tree.map(
      lambda old, new: new if jnp.issubdtype(new.dtype, jnp.integer)
      else old + jnp.asarray(rate, old.dtype) * (new - old),
      target, jax.lax.stop_gradient(online))
