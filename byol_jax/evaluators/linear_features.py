"""Multinomial logistic regression on cached features: the quick linear evaluation.

For standardised features x_i, labels y_i, weights W [D, C] and bias b [C] the
objective over N images is

    (1 / N) * sum_i cross_entropy(softmax(x_i W + b), y_i) + 0.5 * l2 * ||W||^2,

without a penalty on b. In scikit-learn's LogisticRegression the same minimiser
has C = 1 / (l2 * N). Minimised by L-BFGS (D. C. Liu, J. Nocedal: On the
Limited Memory BFGS Method, 1989) in float32, with all training features and
their standardised copy on the default device at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax.errors import InputError
from byol_jax.evaluators import Features, accuracy, check_features, label_ranks

PROTOCOL = (
    'Multinomial logistic regression by L-BFGS on cached features of images without augmentation, '
    'standardised by the mean and standard deviation of the training features; the l2 penalty is '
    'chosen by top-1 on validation images held out from training, the stronger of equals; no refit '
    "on training and validation images together. This quick form is not the paper's linear "
    'evaluation (appendix C.1), which trains with SGD on augmented images.')


class Parameters(NamedTuple):
  """weights: float32 [D, C]; bias: float32 [C]."""

  weights: chex.Array
  bias: chex.Array


class Candidate(NamedTuple):
  """What came out for one value of l2."""

  l2: float
  validation_top1: float
  iterations: int
  gradient_max_norm: float


class Fitted(NamedTuple):
  """The classifier of the chosen l2, and how it was chosen.

  mean, std: float32 [D], of the training features.
  candidates: one for each l2, from strong to weak; `chosen` is an index.
  """

  parameters: Parameters
  mean: np.ndarray
  std: np.ndarray
  candidates: tuple[Candidate, ...]
  chosen: int
  tolerance: float
  max_iterations: int
  train_images: int
  validation_images: int


def fit(train: Features, validation: Features, *, num_classes: int, l2_values: Sequence[float],
        tolerance: float, max_iterations: int) -> Fitted:
  """Fits one classifier per l2 on `train`, keeps the best on `validation`.

  From the strongest l2 to the weakest, each fit starts at the solution before.

  Args:
    train: N labelled images, embeddings float32 [N, D].
    validation: M labelled images, which choose l2 and are not trained on.
    num_classes: classes in the data set.
    l2_values: strengths of the penalty to try, each > 0, in any order.
    tolerance: a fit ends when no entry of the gradient exceeds it; > 0, and
      1e-6 is about what float32 can reach.
    max_iterations: or after this many steps of L-BFGS.

  Raises:
    InputError: an option out of its range, unusable features, one class only.
  """
  _check(train, validation, num_classes, l2_values, tolerance, max_iterations)
  mean, std = _moments(train.embeddings)
  inputs, held_out = (_standardise(part.embeddings, mean, std) for part in (train, validation))
  parameters = Parameters(jnp.zeros((len(mean), num_classes)), jnp.zeros(num_classes))
  solutions, candidates = [], []
  for l2 in sorted(l2_values, reverse=True):
    parameters, iterations, gradient_max_norm = _minimise(
        parameters, inputs, train.labels, l2, tolerance, max_iterations)
    top1 = _accuracy(parameters, held_out, validation.labels)['top1']
    solutions.append(parameters)
    candidates.append(Candidate(float(l2), top1, int(iterations), float(gradient_max_norm)))
  chosen = int(np.argmax([candidate.validation_top1 for candidate in candidates]))
  return Fitted(jax.device_get(solutions[chosen]), mean, std, tuple(candidates), chosen,
                tolerance, max_iterations, len(train.labels), len(validation.labels))


def evaluate(fitted: Fitted, test: Features) -> dict[str, float]:
  """Accuracy of the classifier on `test`, embeddings float32 [M, D], labelled.

  Returns:
    Fractions in [0, 1] under 'top1' and, for more than five classes, 'top5'.

  Raises:
    InputError: unusable test features.
  """
  check_features('test', test, len(fitted.parameters.bias))
  inputs = _standardise(test.embeddings, fitted.mean, fitted.std)
  return _accuracy(fitted.parameters, inputs, test.labels)


def describe(fitted: Fitted) -> dict[str, Any]:
  """The protocol in words, the choice of l2 and the counts of images.

  'candidates' has a record for each l2, from strong to weak; 'converged' says
  that its fit ended by the tolerance. 'l2_at_edge' asks for a wider grid.
  """
  return dict(
      protocol=PROTOCOL, l2=fitted.candidates[fitted.chosen].l2,
      l2_at_edge=fitted.chosen in (0, len(fitted.candidates) - 1),
      candidates=[dict(one._asdict(), converged=one.gradient_max_norm <= fitted.tolerance)
                  for one in fitted.candidates],
      tolerance=fitted.tolerance, max_iterations=fitted.max_iterations,
      num_classes=len(fitted.parameters.bias), train_images=fitted.train_images,
      validation_images=fitted.validation_images)


def _check(train: Features, validation: Features, num_classes: int, l2_values: Sequence[float],
           tolerance: float, max_iterations: int) -> None:
  check_features('train', train, num_classes)
  check_features('validation', validation, num_classes)
  chex.assert_equal_shape_suffix([train.embeddings, validation.embeddings], 1)
  if train.labels.min() == train.labels.max():
    raise InputError(f'All {len(train.labels)} training images are of class {train.labels[0]}; '
                     'a classifier needs at least 2 classes.')
  if not len(l2_values) or not all(0 < l2 < np.inf for l2 in l2_values):
    raise InputError(f'l2_values is {l2_values}; give one or more strengths above 0.')
  if not tolerance > 0 or max_iterations < 1:
    raise InputError(f'tolerance is {tolerance} and max_iterations is {max_iterations}; '
                     'set tolerance above 0 and max_iterations to at least 1.')


def _moments(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation float32 [D]; 1 for a dimension that is constant."""
  # Sums in float64 by pieces: in float32 a million equal values do not have
  # their own value as mean, and the whole in float64 would not fit.
  pieces = [embeddings[start:start + 8192] for start in range(0, len(embeddings), 8192)]
  mean = sum(piece.sum(axis=0, dtype=np.float64) for piece in pieces) / len(embeddings)
  variance = sum(np.square(piece - mean).sum(axis=0) for piece in pieces) / len(embeddings)
  # Below the resolution of float32 there is only rounding to blow up.
  std = np.where(np.sqrt(variance) <= 1e-6 * np.abs(mean), 1., np.sqrt(variance))
  return mean.astype(np.float32), std.astype(np.float32)


def _accuracy(parameters: Parameters, inputs: chex.Array, labels: np.ndarray) -> dict[str, float]:
  ranks = label_ranks(np.asarray(_logits(parameters, inputs)), labels)
  return accuracy(ranks, len(parameters.bias))


@jax.jit
def _standardise(embeddings: chex.Array, mean: chex.Array, std: chex.Array) -> chex.Array:
  return (embeddings - mean) / std


@jax.jit
def _logits(parameters: Parameters, inputs: chex.Array) -> chex.Array:
  # Default precision on an accelerator is too coarse for the line search.
  return jnp.matmul(inputs, parameters.weights, precision='highest') + parameters.bias


@jax.jit
def _minimise(parameters: Parameters, inputs: chex.Array, labels: chex.Array, l2: float,
              tolerance: float, max_iterations: int) -> tuple[Parameters, chex.Array, chex.Array]:
  """The minimiser, the number of iterations and the max-norm of the gradient there."""
  chex.assert_shape([inputs, labels], [(None, parameters.weights.shape[0]), (len(inputs),)])

  def objective(parameters):
    losses = optax.softmax_cross_entropy_with_integer_labels(_logits(parameters, inputs), labels)
    return jnp.mean(losses) + 0.5 * l2 * jnp.sum(jnp.square(parameters.weights))

  optimiser = optax.lbfgs()
  value_and_gradient = optax.value_and_grad_from_state(objective)

  def step(carry):
    parameters, state, iterations, _ = carry
    value, gradient = value_and_gradient(parameters, state=state)
    updates, state = optimiser.update(
        gradient, state, parameters, value=value, grad=gradient, value_fn=objective)
    # The line search leaves the gradient at the new parameters in its state.
    gradient_max_norm = optax.tree.norm(optax.tree.get(state, 'grad'), ord=jnp.inf)
    return optax.apply_updates(parameters, updates), state, iterations + 1, gradient_max_norm

  parameters, _, iterations, gradient_max_norm = jax.lax.while_loop(
      lambda carry: (carry[3] > tolerance) & (carry[2] < max_iterations),
      step, (parameters, optimiser.init(parameters), 0, jnp.inf))
  return parameters, iterations, gradient_max_norm
