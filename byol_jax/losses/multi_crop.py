"""Multi-crop: small views of an image, which predict what the target sees of the large ones.

Caron et al. 2020 (SwAV, arXiv 2006.09882, section 3.3). For methods with a predictor each type of
view should have its own: with a shared one BYOL is unstable (arXiv 2602.05845, abstract).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def with_small_views(loss: jax.Array, views: Sequence[jax.Array], target, online_params,
                     online_state, recipe) -> jax.Array:
  """The mean of the loss of the large views and of one for each small view.

  The loss of a small view is the objective with its prediction in both directions: it regresses
  the target's projections of both large views. So all losses are in the objective's range.

  Args:
    loss: of the large views, [].
    views: small ones, each [B, h, w, 3] in [0, 1].
    target: `model.Outputs` of the two large views.
    online_params: theta; its small predictor predicts, or the only one.
    online_state: running statistics, which stay as they are: with a decay of 0.9 those of the
      last small views would outweigh those of the large ones, which are what is evaluated.
    recipe: of the training step.
  """
  losses = [loss]
  for view in views:
    outputs, _ = recipe.model.apply_to_small(online_params, online_state, view, True)
    losses.append(jnp.mean(recipe.objective([outputs, outputs], target)))
  return jnp.mean(jnp.stack(losses))
