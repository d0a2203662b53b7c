"""Logistic regression along a path of penalties, minimised to convergence by L-BFGS.

For inputs x_i [D], targets t_i [C], weights W [D, C] and bias b [C] the objective is

    sum_i loss(x_i W + b, t_i) + 0.5 * l2 * ||W||^2,

which is a sum over the images, not a mean, without a penalty on b. The loss is the cross-entropy
of the softmax ('multinomial'), or the sum of the C logistic losses ('binary'). In scikit-learn's
LogisticRegression, C = 1 / l2; for two classes, where it has only one vector of weights,
C = 2 / l2.

L-BFGS (Liu and Nocedal 1989) runs in coordinates in which the Hessian at its start is near
the identity: with M = sum_i h_i x_i x_i^T + l2, h_i the mean curvature of the loss at x_i,
and M = L L^T, it optimises V = L^T W. Otherwise, weak penalties on separable classes do not
converge in thousands of iterations. With many features and few classes, the sum in M takes as long
as many iterations: it is computed again if the last penalty took that many iterations, and
otherwise multiplied by the change of the mean curvature.
"""

from collections.abc import Iterator, Sequence
import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.errors import InputError

KINDS = ('multinomial', 'binary')
# Least curvature of an image, as a share of the mean; otherwise an image that is classified
# with certainty would contribute nothing.
LEAST_CURVATURE = 1e-3
# On a CPU, the sum of the h_i x_i x_i^T takes as long as about this times D / C iterations.
SUM_IN_ITERATIONS = .25
# Smallest ridge of the factored matrix, as a multiple of its trace times the machine epsilon.
ROUNDING = 4


class Parameters(NamedTuple):
  """weights: [D, C]; bias: [C]."""

  weights: chex.Array
  bias: chex.Array


class Solution(NamedTuple):
  """The minimiser for one penalty.

  l2: the penalty.
  parameters: float arrays on the host.
  objective: the sum above.
  gap: squared norm of the gradient in the coordinates of the iteration, as a share of the
    objective. It estimates the relative distance from the minimum, which was at most 41
    times as large on real images, and 2,700 times if a class had one image in 200. For
    'binary' losses it is the largest gap of all classes.
  iterations: number of L-BFGS iterations; for 'binary' losses, the largest of all classes.
  converged: whether the gap is below the tolerance.
  """

  l2: float
  parameters: Parameters
  objective: float
  gap: float
  iterations: int
  converged: bool


class _Curvature(NamedTuple):
  """matrix: [D, D], the sum of the h_i x_i x_i^T; total: the sum of the h_i."""

  matrix: chex.Array
  total: chex.Array


def path(inputs: np.ndarray, targets: np.ndarray, *, kind: str, l2_values: Sequence[float],
         tolerance: float, max_iterations: int, dtype: str) -> Iterator[Solution]:
  """Yields the minimisers from the strongest penalty to the weakest, each started at the previous.

  Args:
    inputs: [N, D].
    targets: [N, C], one-hot for 'multinomial'; 0 or 1 for 'binary', -1 for labels to ignore.
    kind: one of KINDS.
    l2_values: penalties, > 0, in any order.
    tolerance: tolerance for `Solution.gap`.
    max_iterations: largest number of iterations for each penalty.
    dtype: 'float64', or 'float32', in which a tolerance below 1e-5 may not be reached.

  Raises:
    InputError: there is only one class, or features are too large for the dtype.
  """
  chex.assert_rank([inputs, targets], 2)
  chex.assert_equal_shape_prefix([inputs, targets], 1)
  # The bias has no penalty, so centred inputs have the same minimum.
  mean = inputs.mean(axis=0, dtype=np.float64)
  # Problems without shared weights are minimised separately, each in its own coordinates.
  problems = [targets] if kind == 'multinomial' else np.split(targets, targets.shape[1], axis=1)
  with jax.enable_x64(dtype == 'float64'):
    centred = jnp.asarray(inputs - mean, dtype)
    problems = [jnp.asarray(problem, dtype) for problem in problems]
  l2_values = sorted(l2_values, reverse=True)
  paths = [_path(centred, problem, l2_values, tolerance, max_iterations, kind)
           for problem in problems]
  for l2, *found in zip(l2_values, *paths):
    parameters, *numbers = zip(*found)
    weights, bias = (np.concatenate(arrays, axis=-1) for arrays in zip(*parameters))
    objectives, gaps, iterations = map(np.array, numbers)
    if not np.isfinite(objectives).all():
      raise InputError(f'Logistic regression with l2 {l2:g} reached no finite loss in {dtype}, '
                       f'with features from {inputs.min():g} to {inputs.max():g} and '
                       f'{targets.shape[1]} classes; give two or more classes, and use float64 '
                       'for large features.')
    yield Solution(float(l2), Parameters(weights, bias - mean @ weights),
                   float(objectives.sum()), float(gaps.max()), int(iterations.max()),
                   bool(gaps.max() <= tolerance))


def _path(inputs: chex.Array, targets: chex.Array, l2_values: Sequence[float], tolerance: float,
          max_iterations: int, kind: str):
  """Results of `_minimise` for each penalty, on the host; each starts from the previous result."""
  dimension, classes = inputs.shape[1], targets.shape[1]
  start = Parameters(np.zeros((dimension, classes), inputs.dtype), np.zeros(classes, inputs.dtype))
  iterations = np.inf
  for l2 in l2_values:
    # Not around the loop: between two yields, a generator would leave x64 on for its caller.
    with jax.enable_x64(inputs.dtype == np.float64):
      if iterations >= SUM_IN_ITERATIONS * dimension / classes:
        curvature = _curvature(start, inputs, kind)
      found = jax.device_get(_minimise(start, inputs, targets, curvature, np.asarray(
          l2, inputs.dtype), tolerance, max_iterations, kind))
    start, *_, iterations = found
    yield found


def logits(parameters: Parameters, inputs: np.ndarray) -> np.ndarray:
  """[N, C] of inputs [N, D]."""
  return inputs @ parameters.weights + parameters.bias


def _losses(kind: str, scores: chex.Array, targets: chex.Array) -> chex.Array:
  """[N], of scores and targets [N, C]."""
  if kind == 'multinomial':
    return jax.nn.logsumexp(scores, axis=1) - jnp.sum(scores * targets, axis=1)
  return jnp.sum(jnp.where(targets < 0, 0., jax.nn.softplus(scores) - scores * targets), axis=1)


def _curvatures(kind: str, scores: chex.Array) -> chex.Array:
  """Mean over the classes of the second derivative of the loss, [N]."""
  shares = jax.nn.softmax(scores) if kind == 'multinomial' else jax.nn.sigmoid(scores)
  found = jnp.mean(shares * (1 - shares), axis=1)
  return found + LEAST_CURVATURE * jnp.mean(found)


# The default precision of an accelerator is too low for the line search.
_product = functools.partial(jnp.matmul, precision='highest')


def _scores(parameters: Parameters, inputs: chex.Array) -> chex.Array:
  return _product(inputs, parameters.weights) + parameters.bias


@functools.partial(jax.jit, static_argnames='kind')
def _curvature(parameters: Parameters, inputs: chex.Array, kind: str) -> _Curvature:
  curvatures = _curvatures(kind, _scores(parameters, inputs))
  return _Curvature(_product(inputs.T * curvatures, inputs), jnp.sum(curvatures))


@functools.partial(jax.jit, static_argnames='kind')
def _minimise(start: Parameters, inputs: chex.Array, targets: chex.Array, curvature: _Curvature,
              l2: chex.Array, tolerance: float, max_iterations: int, kind: str):
  """The minimiser, its objective, its gap and the number of iterations."""
  total = jnp.sum(_curvatures(kind, _scores(start, inputs)))
  matrix = total / curvature.total * curvature.matrix
  # With dependent features, rounding makes the factorisation fail: 1e6 times a repeated feature
  # gave NaN with l2 = 1e-4. The minimum does not depend on the coordinates.
  ridge = jnp.maximum(l2, ROUNDING * jnp.finfo(inputs.dtype).eps * jnp.trace(matrix))
  root = jnp.linalg.cholesky(matrix + ridge * jnp.eye(inputs.shape[1], dtype=inputs.dtype))
  bias_root = jnp.sqrt(total)

  def back(moved):
    return Parameters(jax.scipy.linalg.solve_triangular(root, moved.weights, trans=1, lower=True),
                      moved.bias / bias_root)

  def objective(moved):
    parameters = back(moved)
    return (jnp.sum(_losses(kind, _scores(parameters, inputs), targets))
            + 0.5 * l2 * jnp.sum(jnp.square(parameters.weights)))

  optimiser = optax.lbfgs()
  value_and_gradient = optax.value_and_grad_from_state(objective)

  def step(carry):
    moved, state, iterations, _ = carry
    value, gradient = value_and_gradient(moved, state=state)
    updates, state = optimiser.update(
        gradient, state, moved, value=value, grad=gradient, value_fn=objective)
    # The line search stores value and gradient at the new position in its state.
    squares = [jnp.sum(jnp.square(x)) for x in jax.tree.leaves(optax.tree.get(state, 'grad'))]
    return (optax.apply_updates(moved, updates), state, iterations + 1,
            sum(squares) / optax.tree.get(state, 'value'))

  moved = Parameters(_product(root.T, start.weights), start.bias * bias_root)
  infinite = jnp.asarray(jnp.inf, inputs.dtype)
  moved, _, iterations, gap = jax.lax.while_loop(
      lambda carry: (carry[3] > tolerance) & (carry[2] < max_iterations), step,
      (moved, optimiser.init(moved), 0, infinite))
  return back(moved), objective(moved), gap, iterations
