"""Batches that do not fit: their parts one after another, and the mean of what they give."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

# Names of a batch's entries that all parts share.
WHOLE = ('resident',)


def mean_over_parts(of_part: Callable[[Any, Mapping[str, jax.Array]], tuple[Any, Any]],
                    carried: Any, batch: Mapping[str, jax.Array], count: int) -> tuple[Any, Any]:
  """The mean of `of_part` over the parts of a batch (paper, Figure 3a).

  Args:
    of_part: (carried, part) -> (what is averaged, carried to the next part).
    carried: to the first part.
    batch: arrays [B, ...], which split into `count` parts along their rows, and those of
      WHOLE, which do not.
    count: of the parts; 1 is `of_part` itself.

  Returns:
    (means, carried) after the last part.
  """
  if count == 1:
    return of_part(carried, batch)
  whole = {name: batch[name] for name in WHOLE if name in batch}
  parts = {name: array.reshape(count, -1, *array.shape[1:])
           for name, array in batch.items() if name not in whole}

  def add(carry, part):
    sums, carried = carry
    values, carried = of_part(carried, dict(part, **whole))
    return (jax.tree.map(jnp.add, sums, values), carried), None

  first = {name: array[0] for name, array in parts.items()}
  values, _ = jax.eval_shape(of_part, carried, dict(first, **whole))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), values)
  # Within a loop the backward convolutions take many times as long on CPU.
  unroll = jax.default_backend() == 'cpu'
  (sums, carried), _ = jax.lax.scan(add, (zeros, carried), parts, unroll=unroll)
  return jax.tree.map(lambda x: x / count, sums), carried
