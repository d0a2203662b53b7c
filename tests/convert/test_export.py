import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import byol_jax
from byol_jax import checkpoint
from byol_jax.config import as_json
from byol_jax.convert import deepmind, export
from byol_jax.errors import InputError
from experiments.configs import default
from tests import commands
from tests.test_fidelity import GOLDENS

# A process that cannot import this package, nor Haiku; batches of two sizes.
FRESH = '''
import sys
sys.modules.update(byol_jax=None, haiku=None, optax=None, tensorflow=None)
import jax
from jax import export
import numpy as np
with open(sys.argv[1], 'rb') as file:
  encode = export.deserialize(bytearray(file.read())).call
images = np.load(sys.argv[2])
np.savez(sys.argv[3], one=encode(images[:1]), all=jax.jit(encode)(images))
'''


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('export') / 'run'
  config = as_json(default.get_config())
  config['data']['image_size'] = 33
  deepmind.convert(GOLDENS / 'deepmind_format.pkl', folder, config)
  return folder


def test_a_fresh_process_gives_the_same_embeddings(workdir, tmp_path):
  result = commands.run('convert', 'export', checkpoint=workdir,
                        output=tmp_path / 'encoder.stablehlo')
  assert result.returncode == 0, result.stderr
  assert 'images [B, 33, 33, 3] in [0, 1] -> embeddings [B, 8]' in result.stdout
  images = np.random.default_rng(0).uniform(size=(5, 33, 33, 3)).astype(np.float32)
  np.save(tmp_path / 'images.npy', images)
  environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
  subprocess.run([sys.executable, '-c', FRESH, 'encoder.stablehlo', 'images.npy', 'out.npz'],
                 cwd=tmp_path, check=True, env=environment)
  wanted = byol_jax.load_encoder(workdir)(images)
  with np.load(tmp_path / 'out.npz') as found:
    np.testing.assert_allclose(found['all'], wanted, 1e-5, 1e-6)
    np.testing.assert_allclose(found['one'], wanted[:1], 1e-5, 1e-6)


def test_what_lies_beside_it(workdir, tmp_path):
  done = export.write(workdir, tmp_path / 'encoder.stablehlo')
  about = json.loads((tmp_path / 'encoder.stablehlo.json').read_text())
  assert (about['image_size'], about['embedding_size'], about['step']) == (33, 8, 3)
  assert about['digest'] == checkpoint.read_meta(workdir)['digests']['online']
  assert about['source']['licence'].startswith('CC BY-NC 4.0')
  data = (tmp_path / 'encoder.stablehlo').read_bytes()
  assert len(data) == done.num_bytes
  assert set(jax.export.deserialize(bytearray(data)).platforms) == {'cpu', 'cuda', 'rocm', 'tpu'}


def test_a_folder_that_is_not_there(workdir, tmp_path):
  with pytest.raises(InputError, match='cannot be written'):
    export.write(workdir, tmp_path / 'none' / 'encoder.stablehlo')
