"""Trees of arrays in words."""

import chex
import jax.numpy as jnp
import optax

from byol_jax import tensors


def test_any_pytree_becomes_nested_dicts_and_comes_back():
  optimizer = optax.chain(optax.adam(.1), optax.trace(.9))
  params = {'linear': {'w': jnp.array([1., -2.])}}
  _, state = optimizer.update(params, optimizer.init(params), params)
  found = tensors.nested(state)
  assert set(tensors.flat(found)) == {
      '0/0/count', '0/0/mu/linear/w', '0/0/nu/linear/w', '1/trace/linear/w'}
  chex.assert_trees_all_equal(tensors.filled(optimizer.init(params), found), state)
