"""Batches compared, and put together from several hosts."""

import numpy as np


def assert_same_batches(actual, expected):
  assert len(actual) == len(expected)
  for ours, theirs in zip(actual, expected):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
      np.testing.assert_array_equal(ours[name], array, err_msg=name)


def concatenated(hosts):
  """Batches of several hosts -> global batches."""
  return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
          for parts in zip(*hosts, strict=True)]
