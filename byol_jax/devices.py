"""The accelerators of this machine, divided among processes, without starting JAX."""

import os
import shutil
import subprocess

from byol_jax.errors import InputError


def divided(parts: int) -> list[dict[str, str]]:
  """Environment variables for each of `parts` processes that run at once.

  GPUs are divided evenly. A TPU belongs to one process at a time. CPU cores are left
  to the system: a process that is pinned to other cores than its neighbour may round
  differently.

  Raises:
    InputError: the accelerators cannot be divided so.
  """
  if parts < 1:
    raise InputError(f'--parallel is {parts}; it must be 1 or more.')
  gpus = _gpus()
  if gpus:
    if len(gpus) % parts:
      raise InputError(f'--parallel={parts} does not divide the {len(gpus)} GPUs of this machine.')
    each = len(gpus) // parts
    return [dict(CUDA_VISIBLE_DEVICES=','.join(gpus[i * each:(i + 1) * each]))
            for i in range(parts)]
  if parts > 1 and any(os.path.exists(f'/dev/{name}') for name in ('accel0', 'vfio/0')):
    raise InputError('A TPU belongs to one process at a time; use --parallel=1, or one machine '
                     'per point with --print.')
  return [{} for _ in range(parts)]


def _gpus() -> list[str]:
  """The numbers of the visible NVIDIA GPUs."""
  if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    return []
  if 'CUDA_VISIBLE_DEVICES' in os.environ:
    return [name for name in os.environ['CUDA_VISIBLE_DEVICES'].split(',') if name]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'],
                          capture_output=True, text=True, check=False)
  return listed.stdout.split() if listed.returncode == 0 else []
