"""BYOL's objective with the optimal linear predictor for the batch instead of a learned one."""

import jax
import jax.numpy as jnp

from byol_jax import ranges
from byol_jax.distributed import parallel
from byol_jax.objectives import byol

OPTIONS = dict(ridge=1e-3)  # times the mean diagonal of the Gram matrix; a number above 0
RANGES = dict(ridge=ranges.POSITIVE)
_HIGHEST = jax.lax.Precision.HIGHEST


def loss(online, target, *, ridge: float = 1e-3) -> jax.Array:
  """`byol.loss` with predictions by linear regression on the batch, [B] in [0, 8].

  The paper keeps the predictor near its optimum without a moving average: it uses the optimal
  linear predictor, from linear regression on the current batch before backpropagation (section 5,
  52.5 top-1 on ImageNet; appendix I.2 leaves the details open). The choices here: one matrix for
  both directions, from the projections
  of the online network to the normalised projections of the target, over the whole batch on all
  devices; no gradient flows into the matrix, only through the projections that it is applied to.
  It is meant for `model.predictor` () and `train.target` 'stop_gradient', but it uses only
  projections and works with any setting. A batch with fewer images than half the dimension of the
  projections can always be fitted exactly.

  Args:
    online: `model.Outputs` of view 1 and of view 2 by the online network.
    target: the same for the target network, or for the online one.
    ridge: above 0; its product with the Gram matrix's mean diagonal is added to that diagonal.
  """
  inputs = [outputs.projection for outputs in online]
  wanted = [byol.l2_normalize(outputs.projection) for outputs in reversed(target)]
  matrix = _regression(jnp.concatenate(inputs), jnp.concatenate(wanted), ridge)
  predictions = [jnp.matmul(x, matrix, precision=_HIGHEST) for x in inputs]
  return sum(byol.regression_loss(prediction, projection)
             for prediction, projection in zip(predictions, wanted))


def _regression(inputs: jax.Array, wanted: jax.Array, ridge: float) -> jax.Array:
  """The [P, P] matrix of ridge regression between the rows of all devices; has no gradient."""
  inputs, wanted = jax.lax.stop_gradient((inputs, wanted))
  gram, cross = parallel.mean_over_devices(
      tuple(jnp.matmul(inputs.T, x, precision=_HIGHEST) for x in (inputs, wanted)))
  scale = jnp.mean(jnp.diagonal(gram))
  # The smallest float avoids a division by zero if all projections are zero.
  penalty = ridge * scale + jnp.finfo(gram.dtype).tiny
  return jax.scipy.linalg.solve(gram + penalty * jnp.eye(len(gram), dtype=gram.dtype), cross,
                                assume_a='pos')
