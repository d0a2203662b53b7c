"""What the predictions regress: the paper's target network, its ablations, and EMAN.

Each target is a function (online, online_state, views, state, recipe) -> (target, target_state).
`online` and `target` are pairs of `model.Outputs`, one for each of the two `views`
[B, H, W, 3]; `state` is the `TrainState`, `online_state` that of the online network after its
passes of this step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def moving_average(online, online_state, views, state, recipe):
  """The projections of the moving average, on the statistics of the batch (section 3.1)."""
  del online, online_state
  return _passes(views, state.target_params, state.target_state, recipe, of_batch=True)


def with_averaged_statistics(online, online_state, views, state, recipe):
  """The same on a moving average of the online network's statistics (EMAN, arXiv 2101.08482)."""
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


# By `train.target`, ...
TARGETS = dict(moving_average=moving_average, stop_gradient=stop_gradient, none=none)
# ... and the first of them by `train.target_statistics`.
STATISTICS = dict(batch=moving_average, moving_average=with_averaged_statistics)


def named(target: str, statistics: str) -> Callable:
  """The function of a name of TARGETS and one of STATISTICS."""
  return STATISTICS[statistics] if target == 'moving_average' else TARGETS[target]


def _passes(views, params, network_state, recipe, *, of_batch: bool):
  outputs = []
  with jax.named_scope('target'):
    for view in views:
      one, network_state = recipe.model.apply(params, network_state, view, of_batch)
      outputs.append(one)
  return jax.lax.stop_gradient(tuple(outputs)), network_state


def averaged_statistics(target, online, step: jax.Array, tau: jax.Array):
  """The target's averages of BatchNorm, moved towards the online network's; at first, those.

  Args:
    target: Haiku state of the target network.
    online: the same of the online network, after its passes of this step.
    step: optimizer steps done before, int32 [].
    tau: decay, as of the parameters. With accumulation it acts for each part of the batch.
  """
  rate = 1. - jnp.where(step == 0, 0., tau)
  # Counters are integers; only the averages are read.
  return jax.tree.map(
      lambda old, new: new if jnp.issubdtype(new.dtype, jnp.integer)
      else old + jnp.asarray(rate, old.dtype) * (new - old),
      target, jax.lax.stop_gradient(online))
