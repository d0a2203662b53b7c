"""Loops on the device over the parts of a batch and over steps."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

# Names of the batch entries that all parts and all steps share.
SHARED = ('resident',)

Batch = Mapping[str, jax.Array]


def mean_over_parts(of_part: Callable[[Any, Batch], tuple[Any, Any]], carried: Any, batch: Batch,
                    count: int) -> tuple[Any, Any]:
  """The mean of `of_part` over the parts of a batch that does not fit in memory (Figure 3a).

  Args:
    of_part: (carried, part) -> (values to average, values carried to the next part).
    carried: values passed to the first part.
    batch: arrays [B, ...], split into `count` parts along their rows, except the arrays named
      in SHARED, which are not split.
    count: number of parts; with 1, calls `of_part` once.

  Returns:
    (means, carried) after the last part.
  """
  if count == 1:
    return of_part(carried, batch)
  whole, rows = _separated(batch)
  parts = {name: array.reshape(count, -1, *array.shape[1:]) for name, array in rows.items()}

  def add(carry, part):
    sums, carried = carry
    values, carried = of_part(carried, dict(part, **whole))
    return (jax.tree.map(jnp.add, sums, values), carried), None

  first = {name: array[0] for name, array in parts.items()}
  values, _ = jax.eval_shape(of_part, carried, dict(first, **whole))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), values)
  (sums, carried), _ = _scan(add, (zeros, carried), parts)
  return jax.tree.map(lambda x: x / count, sums), carried


def over_steps(step: Callable[[Any, Batch], tuple[Any, Any]], state: Any, batches: Batch
               ) -> tuple[Any, Any]:
  """Runs several steps in one dispatch.

  Args:
    step: (state, batch) -> (state, scalars).
    state: the state before the first step.
    batches: arrays [n, ...] for n steps, and the arrays named in SHARED, which all steps share.

  Returns:
    The last state, and the scalars [n, ...] of all steps.
  """
  whole, each = _separated(batches)
  return _scan(lambda state, batch: step(state, dict(batch, **whole)), state, each)


def _separated(batch: Batch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  whole = {name: batch[name] for name in SHARED if name in batch}
  return whole, {name: array for name, array in batch.items() if name not in whole}


def _scan(function, carried, inputs):
  """`jax.lax.scan`, unrolled on CPU."""
  length = len(jax.tree.leaves(inputs)[0])
  # Inside a loop, even with a single iteration, a step's backward convolutions took 8 to 25
  # times as long on a CPU.
  if length > 1 and jax.default_backend() != 'cpu':
    return jax.lax.scan(function, carried, inputs)
  outputs = []
  for i in range(length):
    carried, output = function(carried, jax.tree.map(lambda x, i=i: x[i], inputs))
    outputs.append(output)
  return carried, jax.tree.map(lambda *each: jnp.stack(each), *outputs)
