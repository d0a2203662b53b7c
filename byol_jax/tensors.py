"""Trees of arrays in words: paths, shapes, and a digest that tells them apart."""

from collections.abc import Mapping
import hashlib
from typing import Any

import jax
import numpy as np

from byol_jax.errors import InputError

Tree = Mapping[str, Any]


def digest(tree: Tree) -> str:
  """sha256 over paths, dtypes, shapes and bytes of all arrays, in the order of the paths."""
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
  """Raises InputError with the tensors that differ between two descriptions."""
  differing = [f'{path}: saved {saved.get(path, "-")}, wanted {wanted.get(path, "-")}'
               for path in sorted({*saved, *wanted}) if saved.get(path) != wanted.get(path)]
  if differing:
    shown = '\n  '.join(differing[:10])
    more = f'\n  and {len(differing) - 10} more' if len(differing) > 10 else ''
    raise InputError(f'{where}: the checkpoint holds another architecture. '
                     f'{len(differing)} tensors differ:\n  {shown}{more}')


def nested(tree: Any) -> dict[str, Any]:
  """Any pytree of arrays as nested dicts; fields of tuples are called by name or by place."""
  result: dict[str, Any] = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    inside, (*parts, last) = result, _names(path)
    for part in parts:
      inside = inside.setdefault(part, {})
    inside[last] = leaf
  return result


def filled(like: Any, values: Tree) -> Any:
  """The pytree of which `values` are what `nested` gives; `like` says what it consists of."""
  found = flat(values)
  return jax.tree_util.tree_map_with_path(lambda path, _: found['/'.join(_names(path))], like)


def _names(path) -> list[str]:
  """{key} of a dict, .name of a named tuple, [place] of a tuple: as plain text."""
  return [jax.tree_util.keystr((key,), simple=True) for key in path]


def flat(tree: Tree) -> dict[str, np.ndarray]:
  """{path: array} of nested dicts, the path's parts joined by slashes."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {'/'.join(str(key.key) for key in path): leaf for path, leaf in leaves}
