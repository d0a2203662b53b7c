"""Multi-crop: small views of an image predict the target's projections of the large views.

Caron et al. 2020 (SwAV, arXiv 2006.09882, section 3.3). For methods with a predictor each type of
view should have its own; with a shared predictor BYOL is unstable (arXiv 2602.05845, abstract).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def with_small_views(loss: jax.Array, views: Sequence[jax.Array], target, online_params,
                     online_state, recipe) -> jax.Array:
  """The mean of the loss of the large views and one loss for each small view.

  The loss of a small view is the objective with its prediction in both directions: it regresses
  the target's projections of both large views, so all losses are in the objective's range.

  Args:
    loss: the loss of the large views, [].
    views: the small views, each [B, h, w, 3] in [0, 1].
    target: `model.Outputs` of the two large views.
    online_params: theta; its small predictor is used if there is one, else its only predictor.
    online_state: running statistics, not updated here: with a decay of 0.9 the statistics of the
      last small views would outweigh those of the large views, which evaluation uses.
    recipe: the recipe of the training step.
  """
  losses = [loss]
  for view in views:
    outputs, _ = recipe.model.apply_to_small(online_params, online_state, view, True)
    losses.append(jnp.mean(recipe.objective([outputs, outputs], target)))
  return jnp.mean(jnp.stack(losses))
