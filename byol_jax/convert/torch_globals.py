"""What files of torch.save name beside tensors, and inert stand-ins for what is usual there.

Training programs save their options, scores and paths with the weights. torch's weights-only
loader refuses them, as each is a function or class that the file wants to be called. Here
nothing of these libraries is imported or called: the loader gets classes that take any
arguments, do nothing with them and hold nothing; of NumPy's arrays, which can be weights, those
of `torch_arrays`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
import contextlib
import os
import pickletools
from typing import Any, BinaryIO
import zipfile

from byol_jax.convert import torch_arrays

# Of modules and of what is in them. A library's networks are not among them: their weights would
# be lost without a word.
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
# Classes of dicts whose items follow, which the loader puts into dicts alone.
DICTS = ('AttributeDict', 'AttrDict', 'CfgNode', 'ConfigDict', 'Dict', 'EasyDict', 'SimpleConfig')
# Python 2's names, as pickles of protocol 2 have them; the loader reads them so.
RENAMED = {'__builtin__.long': 'builtins.int', '__builtin__.xrange': 'builtins.range',
           '__builtin__.unicode': 'builtins.str'}
RENAMED_MODULES = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}
# Before PyTorch 1.6 a file began with its number, its version and facts of the machine.
OLD_PICKLES = 4


class StandIn:
  """Stands for any class or function of a name; `name_in_file` says which."""

  name_in_file = ''

  def __init__(self, *_, **__):
    """Forgets its arguments."""

  def __setstate__(self, state):
    """Forgets it."""


def names(path: str | os.PathLike) -> set[str]:
  """The functions and classes that a file of torch.save names, 'argparse.Namespace'."""
  found: set[str] = set()
  # Of a damaged file what was met before the damage; the loader says what is wrong with it.
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
  """{name: what stands for it}, of those names that are usual."""
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
