"""Devices that are asked for, and their division among processes."""

import re

import jax
import pytest

from byol_jax.distributed import devices
from byol_jax.errors import InputError


def test_gpus_are_divided_evenly(monkeypatch):
  monkeypatch.delenv('JAX_PLATFORMS')
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1,4,5')
  assert devices.divided(2) == [dict(CUDA_VISIBLE_DEVICES='0,1'), dict(CUDA_VISIBLE_DEVICES='4,5')]
  with pytest.raises(InputError, match='--parallel=3 does not divide the 4 GPUs'):
    devices.divided(3)


def test_cpu_cores_are_left_to_the_system(monkeypatch):
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0,1')
  monkeypatch.setattr(devices.os.path, 'exists', lambda path: False)
  assert devices.divided(3) == [{}, {}, {}]
  with pytest.raises(InputError, match='--parallel is 0'):
    devices.divided(0)


def test_a_tpu_is_not_divided(monkeypatch):
  monkeypatch.setattr(devices.os.path, 'exists', lambda path: path == '/dev/accel0')
  assert devices.divided(1) == [{}]
  with pytest.raises(InputError, match='one process at a time'):
    devices.divided(2)


@pytest.mark.parametrize('asked, message', [
    ('cuda,cpu', 'JAX_PLATFORMS is cuda,cpu, and JAX finds no cuda device here. Install its part '
     'of JAX (pip install -e .[cuda12]), or unset JAX_PLATFORMS to take what there is.'),
    ('gpu', 'finds no gpu device here. Install its part of JAX (pip install -e .[cuda12]), or'),
    ('tpu', 'finds no tpu device here. Install its part of JAX (pip install -e .[tpu]), or'),
    ('nonsense', 'finds no nonsense device here. Unset JAX_PLATFORMS to take what there is.')])
def test_devices_that_are_asked_for_and_not_there(asked, message):
  before = jax.config.jax_platforms
  jax.config.update('jax_platforms', asked)
  try:
    with pytest.raises(InputError, match=re.escape(message)):
      devices.check_platforms()
  finally:
    jax.config.update('jax_platforms', before)
  devices.check_platforms()


def test_another_choice_of_devices_that_are_not_there_is_one_line(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORM_NAME', 'gpu')
  def fail(_):
    raise RuntimeError("Unknown backend: 'gpu' requested\nand more")
  monkeypatch.setattr(devices.jax.numpy, 'zeros', fail)
  with pytest.raises(InputError, match=r"^JAX finds no device with JAX_PLATFORM_NAME=gpu[^\n]* "
                     r"\(Unknown backend: 'gpu' requested\)\. Unset [^\n]*$"):
    devices.check_platforms()
