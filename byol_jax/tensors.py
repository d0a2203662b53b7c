"""Describes trees of arrays: their paths, their shapes, and a digest that identifies them."""

from collections.abc import Mapping
import hashlib
from typing import Any

import jax
import numpy as np

from byol_jax.errors import InputError

Tree = Mapping[str, Any]


def digest(tree: Tree) -> str:
  """sha256 of the paths, dtypes, shapes and bytes of all arrays, in path order."""
  digest = hashlib.sha256()
  for path, array in sorted(flat(tree).items()):
    array = np.ascontiguousarray(array)
    digest.update(f'{path} {array.dtype} {list(array.shape)}\n'.encode())
    digest.update(array.tobytes())
  return digest.hexdigest()


def describe(tree: Tree) -> dict[str, str]:
  """{path: dtype and shape} of every array."""
  return {path: f'{leaf.dtype}{list(leaf.shape)}' for path, leaf in flat(tree).items()}


def check(saved: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
  """Raises InputError that lists the tensors that differ between two descriptions."""
  differing = [f'{path}: saved {saved.get(path, "-")}, wanted {wanted.get(path, "-")}'
               for path in sorted({*saved, *wanted}) if saved.get(path) != wanted.get(path)]
  if differing:
    shown = '\n  '.join(differing[:10])
    more = f'\n  and {len(differing) - 10} more' if len(differing) > 10 else ''
    raise InputError(f'{where}: the checkpoint has another architecture. '
                     f'{len(differing)} tensors differ:\n  {shown}{more}')


def nested(tree: Any) -> dict[str, Any]:
  """Any pytree of arrays as nested dicts; tuple fields are keyed by name or position."""
  result: dict[str, Any] = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    inside, (*parts, last) = result, _names(path)
    for part in parts:
      inside = inside.setdefault(part, {})
    inside[last] = leaf
  return result


def filled(like: Any, values: Tree) -> Any:
  """The inverse of `nested`: a pytree with the structure of `like` and the arrays in `values`."""
  found = flat(values)
  return jax.tree_util.tree_map_with_path(lambda path, _: found['/'.join(_names(path))], like)


def _names(path) -> list[str]:
  """The key of a dict, the name in a named tuple or the position in a tuple, as plain text."""
  return [jax.tree_util.keystr((key,), simple=True) for key in path]


def flat(tree: Tree) -> dict[str, np.ndarray]:
  """Flattens nested dicts to {path: array}; slashes join the parts of a path."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(str(key.key) for key in path): leaf for path, leaf in leaves}
