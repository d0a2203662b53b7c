"""The globals that files from torch.save name beside tensors, and inert stand-ins for common ones.

Training programs save their options, scores and paths with the weights. torch's weights-only
loader refuses them, because each is a function or class that the file wants to call. Nothing
in these libraries is imported or called here: the loader gets classes that take any arguments
and ignore them. NumPy arrays, which can be weights, get the classes of `torch_arrays`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
import contextlib
import os
import pickletools
from typing import Any, BinaryIO
import zipfile

from byol_jax.convert import torch_arrays

# Modules and their contents. The networks of libraries are not included: their weights would
# be lost silently.
USUAL = (
    'argparse', 'collections', 'copyreg', 'datetime', 'decimal', 'fractions', 'functools.partial',
    'numpy', 'pathlib', 'types.SimpleNamespace', 'typing', 'uuid', '_codecs.encode',
    *(f'builtins.{name}' for name in ('bool', 'bytearray', 'bytes', 'complex', 'dict', 'float',
                                      'frozenset', 'int', 'list', 'object', 'range', 'set',
                                      'slice', 'str', 'tuple')),
    'torch.optim', 'torch.torch_version',
    'accelerate', 'addict', 'easydict', 'fvcore', 'hydra', 'lightning.fabric.utilities',
    'lightning.pytorch', 'lightning_fabric.utilities', 'lightning_utilities', 'ml_collections',
    'mmcv.utils', 'mmengine', 'omegaconf', 'pytorch_lightning', 'timm.utils',
    'transformers.configuration_utils', 'transformers.trainer_utils',
    'transformers.training_args', 'yacs')
# Dict classes whose items are set afterwards; the loader sets items only in plain dicts.
DICTS = ('AttributeDict', 'AttrDict', 'CfgNode', 'ConfigDict', 'Dict', 'EasyDict', 'SimpleConfig')
# Python 2 names, which pickles of protocol 2 use and the loader translates.
RENAMED = {'__builtin__.long': 'builtins.int', '__builtin__.xrange': 'builtins.range',
           '__builtin__.unicode': 'builtins.str'}
RENAMED_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}
# Before PyTorch 1.6 a file began with a magic number, its version and facts about the machine.
OLD_PICKLES = 4


class StandIn:
  """Replaces any class or function; `name_in_file` is its name."""

  name_in_file = ''

  def __init__(self, *_, **__):
    """Ignores its arguments."""

  def __setstate__(self, state):
    """Ignores the state."""


def names(path: str | os.PathLike) -> set[str]:
  """The functions and classes that a file from torch.save names, such as 'argparse.Namespace'."""
  found: set[str] = set()
  # For a damaged file, the names before the damage; the loader reports what is wrong.
  with contextlib.suppress(ValueError, OSError, EOFError, IndexError, UnicodeDecodeError,
                           zipfile.BadZipFile, NotImplementedError, RuntimeError):
    if not zipfile.is_zipfile(path):
      with open(path, 'rb') as file:
        for _ in range(OLD_PICKLES):
          _add_names(file, found)
      return found
    with zipfile.ZipFile(path) as archive:
      for member in archive.namelist():
        if member.rpartition('/')[2] == 'data.pkl':
          with archive.open(member) as file:
            _add_names(file, found)
  return found


def _add_names(file: BinaryIO, found: set[str]) -> None:
  for instruction, argument, _ in pickletools.genops(file):
    if instruction.name == 'GLOBAL':
      module, _, name = argument.partition(' ')
      found.add(RENAMED.get(f'{module}.{name}', f'{RENAMED_MODULES.get(module, module)}.{name}'))


def stand_ins(found: Iterable[str]) -> dict[str, Callable[..., Any]]:
  """{name: its replacement}, for the common names."""
  return {name: _stand_in(name) for name in sorted(found)
          if any(name == usual or name.startswith(f'{usual}.') for usual in USUAL)}


def _stand_in(name: str) -> Callable[..., Any]:
  if name in torch_arrays.NAMES:
    return torch_arrays.NAMES[name]
  if name == 'collections.defaultdict':
    return _empty_dict
  if name == 'collections.deque':
    return _empty_list
  if name.rpartition('.')[2] in DICTS:
    return OrderedDict
  return type('StandIn', (StandIn,), dict(name_in_file=name))


def _empty_dict(*_) -> dict:
  return {}


def _empty_list(*_) -> list:
  return []
