"""Permutations drawn by a hash: the same on every machine and with every version of NumPy."""

import numpy as np


def permutation(size: int, *key: int) -> np.ndarray:
  """A permutation of 0 ... size - 1, int64, drawn from non-negative integers `key`.

  The places sorted by a hash of each; NumPy's own shuffles promise no fixed stream.
  """
  state = np.uint64(0)
  for value in key:
    state = mix(state + np.uint64(value))
  return np.argsort(mix(state ^ mix(np.arange(size, dtype=np.uint64))), kind='stable')


def mix(x: np.ndarray) -> np.ndarray:
  """splitmix64 (Steele et al. 2014): a bijection of 64-bit words that spreads every bit."""
  with np.errstate(over='ignore'):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
