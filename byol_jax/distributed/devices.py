"""The accelerators of this machine: checks that they exist, and divides them among processes."""

import os
import shutil
import subprocess

import jax

from byol_jax.errors import InputError

# Variables that choose devices, besides JAX_PLATFORMS.
ASKING = ('JAX_PLATFORM_NAME', 'JAX_DEFAULT_DEVICE', 'JAX_NUM_CPU_DEVICES', 'XLA_FLAGS')


def check_platforms() -> None:
  """Checks that JAX finds a device of each kind that JAX_PLATFORMS asks for.

  JAX itself continues without a GPU if the variable is 'cuda,cpu' and there is none.

  Raises:
    InputError: a device is missing; the message says what to install.
  """
  for name in filter(None, (jax.config.jax_platforms or '').split(',')):
    try:
      jax.devices(name)
    except Exception as error:
      extra = dict(gpu='cuda12', cuda='cuda12', tpu='tpu').get(name)
      # Without a GPU JAX only reports an assertion, or which other devices there are.
      cause = ': ' + str(error).splitlines()[0].split(' (set JAX_')[0].rstrip('.') if (
          str(error) and 'Unknown backend' not in str(error)) else ''
      hidden = (' CUDA_VISIBLE_DEVICES is empty, which hides every GPU: unset it.'
                if extra == 'cuda12' and os.environ.get('CUDA_VISIBLE_DEVICES') == '' else '')
      install = f'Install its part of JAX (pip install -e .[{extra}]), or unset' if extra else (
          'Unset')
      raise InputError(f'JAX_PLATFORMS is {jax.config.jax_platforms}, and JAX finds no {name} '
                       f'device here{cause}.{hidden} {install} JAX_PLATFORMS to take what there '
                       'is.') from error
  try:
    jax.numpy.zeros(())
  except Exception as error:
    asked = [f'{name}={os.environ[name]}' for name in ASKING if name in os.environ]
    raise InputError(f'JAX finds no device with {", ".join(asked) or "this installation"} '
                     f'({str(error).splitlines()[0][:200]}). Unset the variables that '
                     'ask for other devices.') from error


def divided(parts: int) -> list[dict[str, str]]:
  """Environment variables for each of `parts` concurrent processes. Does not start JAX.

  GPUs are divided evenly. A TPU belongs to one process at a time. CPU cores are left
  to the system: processes that are pinned to different cores may round
  differently.

  Raises:
    InputError: the accelerators cannot be divided into this many parts.
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
  """The indices of the visible NVIDIA GPUs."""
  if os.environ.get('JAX_PLATFORMS', '').startswith('cpu'):
    return []
  if 'CUDA_VISIBLE_DEVICES' in os.environ:
    return [name for name in os.environ['CUDA_VISIBLE_DEVICES'].split(',') if name]
  if not shutil.which('nvidia-smi'):
    return []
  listed = subprocess.run(['nvidia-smi', '--query-gpu=index', '--format=csv,noheader'],
                          capture_output=True, text=True, check=False)
  return listed.stdout.split() if listed.returncode == 0 else []
