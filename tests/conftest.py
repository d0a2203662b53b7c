"""Four devices on any machine, and what several tests share."""

import atexit
import os
import shutil
import tempfile

# Before jax is imported: the flags are read once. Compiling is nearly all of the
# tests' time, and takes half as long without LLVM's optimizations.
os.environ['JAX_PLATFORMS'] = 'cpu'
flags = os.environ.get('XLA_FLAGS', '')
if 'xla_backend_optimization_level' not in flags:
  flags += ' --xla_backend_optimization_level=0'
os.environ['XLA_FLAGS'] = flags + ' --xla_force_host_platform_device_count=4'

# Before numpy is imported: beside other processes the threads of its matrix products wait for
# each other. scikit-learn's Newton method took 30 times as long with two as with one.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

# The same small networks are compiled by many tests, workers and child processes.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp(prefix='byol_jax_cache')
  atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.5')

import jax
import pytest

jax.config.update('jax_default_matmul_precision', 'highest')


@pytest.fixture(autouse=True, scope='module')
def forget_programs():
  """Drops compiled programs after each file of tests.

  All of them together took 7 GB of a process that then crashed in its next compilation.
  """
  yield
  jax.clear_caches()


@pytest.fixture(params=[1, 4], ids=['1device', '4devices'])
def devices(request):
  """The first 1 and the first 4 of the forced host devices."""
  return jax.devices()[:request.param]


@pytest.fixture(scope='session')
def published_encoder(tmp_path_factory):
  """The workdir of the published code's encoder of the goldens, for images of 32 pixels."""
  from byol_jax.config import as_json
  from byol_jax.convert import deepmind
  from experiments.configs import default
  from tests.test_fidelity import GOLDENS
  folder = tmp_path_factory.mktemp('published') / 'run'
  config = as_json(default.get_config())
  config['data'].update(image_size=32, center_share=1.)
  deepmind.convert(GOLDENS / 'deepmind_format.pkl', folder, config)
  return folder
