import pytest

from byol_jax import devices
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
