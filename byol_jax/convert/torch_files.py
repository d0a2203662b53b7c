"""Reads tensors by name from files of PyTorch weights, without executing anything in them.

safetensors files have nothing but tensors. Files from torch.save are pickles, which torch's
weights-only loader reads; anything else that they name, such as the options of the run, is
replaced by inert stand-ins from `torch_globals`.
"""

from collections.abc import Mapping
import contextlib
import json
import pathlib
import re
import shlex
from typing import Any

import numpy as np

from byol_jax.convert import torch_arrays, torch_globals, torch_names
from byol_jax.errors import InputError
from byol_jax.input_pipeline import file_kinds

# {keys that lead to it: {name: array or torch tensor}}, for every dict with tensors.
StateDicts = dict[tuple[str, ...], dict[str, Any]]
MAX_DEPTH = 8
# Code that keeps only tensors in a dict, at any depth, and turns modules into state dicts.
KEEP = ('keep = lambda x: keep(x.state_dict()) if hasattr(x, "state_dict") else {k: keep(v) for k, '
        'v in x.items() if isinstance(v, (dict, torch.Tensor)) or hasattr(v, "state_dict")} '
        'if isinstance(x, dict) else x')


def read(path: pathlib.Path) -> tuple[StateDicts, dict[str, str]]:
  """The state dicts of a file, and its metadata, which only safetensors files have.

  Raises:
    InputError: there is no such file, it is of another kind, or it cannot be read.
  """
  if not path.exists():
    raise InputError(f'{path}: no such file (--input).')
  kind = file_kinds.kind(path)
  if kind == file_kinds.SAFETENSORS:
    return _read_safetensors(path)
  if kind == file_kinds.TORCH:
    found: StateDicts = {}
    loaded = _load(path)
    _collect(loaded, (), found, set())
    if not found:
      raise InputError(f'{path} has no tensors by name, but {_described(loaded)}. '
                       'Write the file with torch.save(model.state_dict(), FILE).')
    return found, {}
  if kind == file_kinds.TORCHSCRIPT:
    code = (f'import torch; torch.save(torch.jit.load({json.dumps(str(path))}, "cpu").state_dict(),'
            f' {_new(path)})')
    raise InputError(f'{path} is {kind}, which is a program. If you trust it, save only its '
                     f'weights: python -c {shlex.quote(code)}')
  hint = ('; a checkpoint of DeepMind\'s is read by: python -m experiments.convert from_deepmind'
          if kind == file_kinds.PICKLE else '')
  raise InputError(f'{path} is {kind}. Weights are read from safetensors files and files of '
                   f'torch.save (--input){hint}.')


def to_numpy(tensor: Any, where: str, size: int) -> np.ndarray:
  """Converts a tensor from `read` to an array, with floats as float32.

  Args:
    tensor: a tensor from `read`.
    where: file and name, for messages.
    size: size of the file in bytes; no tensor can be larger.

  Raises:
    InputError: the tensor is larger than the file, or damaged.
  """
  if isinstance(tensor, torch_arrays.Array):
    try:
      tensor = tensor.numbers()
    except ValueError as error:
      raise InputError(f'{where}: the array is damaged ({type(error).__name__}); fetch the file '
                       'again.') from error
  if isinstance(tensor, np.ndarray):
    # bfloat16 is a dtype of ml_dtypes and has none of numpy's own kinds.
    return tensor if tensor.dtype.kind in 'biu' else np.asarray(tensor, np.float32)
  # A tensor can repeat one number of its file without limit.
  if tensor.numel() * tensor.element_size() > size:
    raise InputError(f'{where}: a tensor of {tensor.numel():,} numbers, which is larger than the '
                     f'file of {size:,} bytes.')
  tensor = tensor.detach()
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _read_safetensors(path: pathlib.Path) -> tuple[StateDicts, dict[str, str]]:
  safetensors = torch_names.safetensors_library()
  try:
    with safetensors.safe_open(path, 'np') as file:
      names = list(file.keys())
      return {(): {name: file.get_tensor(name) for name in names}}, file.metadata() or {}
  except AttributeError as error:
    # The library asks numpy for a dtype by the name in the file.
    raise InputError(f'{path} has numbers of a kind that NumPy does not have ({error}); save its '
                     'tensors as float32 or float16.') from error
  except (safetensors.SafetensorError, TypeError, OSError) as error:
    raise InputError(_cut_off(path) or f'{path} cannot be read as safetensors ({error}); fetch it '
                     'again.') from error


def _cut_off(path: pathlib.Path) -> str:
  """A sentence about a safetensors file that is shorter than its header says; '' for others."""
  size, least = path.stat().st_size, ''
  with open(path, 'rb') as file:
    length = int.from_bytes(file.read(8), 'little')
    header = file.read(length)
  wanted = 8 + length
  if size < wanted:
    # The missing header would say how many bytes follow it.
    least = 'at least '
  else:
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
      wanted += max(one['data_offsets'][1] for name, one in json.loads(header).items()
                    if name != '__metadata__')
  return (f'{path} is cut off: it has {size:,} bytes, but its header says {least}{wanted:,}; '
          'fetch it again.') if size < wanted else ''


def _load(path: pathlib.Path) -> Any:
  try:
    import torch
  except ImportError as error:
    raise InputError(f'{path} is {file_kinds.TORCH}; reading it needs PyTorch (pip install '
                     '"torch>=2.6"); a safetensors file does not.') from error
  stand_ins = torch_globals.stand_ins(torch_globals.names(path))
  try:
    # Opened here, because torch would guess the kind of the file from its name.
    with (open(path, 'rb') as file,
          torch.serialization.safe_globals([(one, name) for name, one in stand_ins.items()])):
      return torch.load(file, map_location='cpu', weights_only=True)
  # Damaged and hostile files raise many kinds of error.
  except Exception as error:
    raise InputError(f'{path} {_refusal(str(error), path)}') from error


def _refusal(message: str, path: pathlib.Path) -> str:
  named = re.search(r'GLOBAL (\S+) (?:was not an allowed|whose module)', message)
  if not named:
    # torch's own advice, in bold letters, is how to execute the file.
    reason = message.rpartition('WeightsUnpickler error: ')[2].strip()
    reason = re.sub(r'\x1b\[[0-9;]*m', '', (reason.splitlines() or [''])[0])
    return f'cannot be read by torch.load ({ascii(reason[:200])[1:-1]}); fetch it again.'
  code = (f'import torch; {KEEP}; torch.save(keep(torch.load({json.dumps(str(path))}, "cpu", '
          f'weights_only=False)), {_new(path)})')
  return (f'names {ascii(named[1][:200])[1:-1]} beside the weights, which could be any code; '
          'nothing in the file was executed. If you trust it and have the libraries that wrote '
          f'it, save only its tensors: python -c {shlex.quote(code)}')


def _new(path: pathlib.Path) -> str:
  return json.dumps(f'{path.name.split(".")[0]}_tensors.pth')


def _collect(value: Any, keys: tuple[str, ...], found: StateDicts, met: set[int]) -> None:
  """Adds the tensors of a mapping and of the mappings in it; visits each mapping once.

  The mappings of a list have their index as the key.
  """
  if (not isinstance(value, Mapping | list | tuple) or len(keys) > MAX_DEPTH or id(value) in met):
    return
  met.add(id(value))
  named = isinstance(value, Mapping)
  items = list(value.items() if named else enumerate(value))
  tensors = {str(name): one for name, one in items if named and _is_tensor(one)}
  if tensors:
    found[keys] = tensors
  for name, inner in items:
    _collect(inner, (*keys, str(name)), found, met)


def _is_tensor(value: Any) -> bool:
  import torch

  if isinstance(value, torch_arrays.Array):
    return value.holds_numbers()
  # No ResNet has sparse, quantized or meta-device tensors.
  return (isinstance(value, torch.Tensor) and value.layout == torch.strided
          and not value.is_quantized and not value.is_meta)


def _described(value: Any) -> str:
  if isinstance(value, Mapping):
    named = [ascii(str(key)[:50]) + (f' ({_described(one)})' if _tensors_in(one) else '')
             for key, one in list(value.items())[:10]]
    return f'a dict with {", ".join(named) or "nothing"}'
  if count := _tensors_in(value):
    return f'a {type(value).__name__} with {count} tensor{"s" * (count > 1)} without names'
  return ascii(getattr(value, 'name_in_file', f'a {type(value).__name__}'))[1:-1]


def _tensors_in(value: Any) -> int:
  """The number of tensors in a list, which have no names."""
  return sum(map(_is_tensor, value)) if isinstance(value, list | tuple) else 0
