import json
import os
import pathlib
import pickle
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest

from byol_jax.config import as_json
from byol_jax.convert import architecture, pickles
from byol_jax.errors import InputError
from experiments.configs import default
from tests.convert import hostile, reference_files
from tests.test_fidelity import GOLDENS, golden, haiku_tree

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = GOLDENS / 'deepmind_format.pkl'
TREES = {name: haiku_tree(golden('update_1device'), f'step3/{name}')
         for name in reference_files.FIELDS[:-1]}
MOMENTUM = haiku_tree(golden('update_1device'), 'step3/momentum')
# Loads a file where neither JAX nor Haiku nor dill can be imported; prints the most memory
# that it took beyond that of the imports, in bytes.
ALONE = '''
import resource, sys
sys.modules.update(jax=None, haiku=None, dill=None, byol=None, optax=None)
import numpy as np
from byol_jax.convert import pickles
pickles.load(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = pickles.load(sys.argv[2])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
state = dict(zip(found['experiment_state'].fields, found['experiment_state'].values))
np.savez(sys.argv[3], **{f'{module}/{leaf}': array for module, arrays in
                         state['online_params'].items() for leaf, array in arrays.items()})
'''


def load_alone(path, tmp_path):
  """(online parameters, bytes of memory) by a process of that kind."""
  output = tmp_path / 'loaded.npz'
  result = subprocess.run(
      [sys.executable, '-c', ALONE, GOLDEN, path, output], capture_output=True, text=True,
      cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)})
  assert result.returncode == 0, result.stderr
  with np.load(output) as data:
    return dict(data), int(result.stdout)


def assert_state(found):
  """The state of the golden update, all fields of it."""
  state = found['experiment_state']
  assert state.name == '_ByolExperimentState' and state.fields == reference_files.FIELDS
  values = dict(zip(state.fields, state.values))
  for name, tree in TREES.items():
    assert set(values[name]) == set(tree)
    for module, arrays in tree.items():
      for leaf, array in arrays.items():
        np.testing.assert_array_equal(values[name][module][leaf], array, strict=True)
  momentum, = (part.values[0] for part in values['opt_state'] if getattr(part, 'values', ()))
  for module, arrays in MOMENTUM.items():
    for leaf, array in arrays.items():
      np.testing.assert_array_equal(momentum[module][leaf], array, strict=True)


def test_the_golden_file_holds_the_golden_state():
  found = pickles.load(GOLDEN)
  assert_state(found)
  assert found['step'] == 3
  np.testing.assert_array_equal(found['rng'], np.zeros(2, np.uint32), strict=True)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('old', [False, True], ids=['today', '2020'])
def test_classes_by_reference(tmp_path, monkeypatch, protocol, old):
  path = tmp_path / 'file.pkl'
  reference_files.write(path, TREES, MOMENTUM, np.int64(7), monkeypatch, protocol=protocol, old=old)
  found = pickles.load(path)
  assert_state(found)
  assert found['step'] == 7
  assert b'_ByolExperimentState' in path.read_bytes()


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_written_by_dill(tmp_path, monkeypatch, protocol):
  dill = pytest.importorskip('dill')
  path = tmp_path / 'file.pkl'
  reference_files.write(path, TREES, MOMENTUM, 7, monkeypatch, library=dill, protocol=protocol)
  assert 'dill._dill._create_namedtuple' in pickles.scan(path).names
  assert_state(pickles.load(path))


def test_written_by_dill_from_haikus_own_mappings_and_jax_arrays(tmp_path):
  dill = pytest.importorskip('dill')
  import haiku as hk
  import jax
  path = tmp_path / 'file.pkl'
  tree = hk.data_structures.to_immutable_dict(jax.tree.map(jax.numpy.asarray, MOMENTUM))
  path.write_bytes(dill.dumps(tree, protocol=2))
  found = pickles.load(path)
  for module, arrays in MOMENTUM.items():
    for leaf, array in arrays.items():
      np.testing.assert_array_equal(found[module][leaf], array, strict=True)
  assert 'jax._src.array._reconstruct_array' in pickles.scan(path).names


def test_written_by_dill_from_a_class_inside_of_a_function(tmp_path):
  dill = pytest.importorskip('dill')

  class Inner(NamedTuple):
    mu: int

  path = tmp_path / 'file.pkl'
  path.write_bytes(dill.dumps(Inner(np.arange(3)), protocol=2))
  found = pickles.load(path)
  assert (found.name, found.fields) == ('Inner', ('mu',))
  np.testing.assert_array_equal(found.values[0], np.arange(3), strict=True)


def test_needs_no_other_library(tmp_path):
  loaded, _ = load_alone(GOLDEN, tmp_path)
  assert set(loaded) == {f'{module}/{leaf}' for module, arrays in TREES['online_params'].items()
                         for leaf in arrays}


@pytest.mark.parametrize('array', [
    np.arange(6, dtype='>i4').reshape(2, 3), np.asfortranarray(np.arange(12.).reshape(3, 4)),
    np.array(True), np.zeros((0, 5), np.float16), np.arange(300, dtype=np.uint8),
    np.float32(2.5), np.arange(1000.).reshape(10, 100)[:, ::2], np.full(4, np.nan, np.float64)],
    ids=lambda a: f'{a.dtype}{a.shape}')
@pytest.mark.parametrize('protocol', [2, 5])
def test_arrays_of_all_kinds(tmp_path, array, protocol):
  path = tmp_path / 'file.pkl'
  path.write_bytes(pickle.dumps(dict(a=array, b=[array, None, (1, 'x', 2.5, True)]),
                                protocol=protocol))
  found = pickles.load(path)
  native = np.asarray(array).astype(array.dtype.newbyteorder('='))
  np.testing.assert_array_equal(found['a'], native, strict=True)
  assert found['a'].flags.c_contiguous and found['a'].flags.writeable
  assert found['b'][1:] == [None, (1, 'x', 2.5, True)]


def test_bytes_of_every_value_in_long_texts(tmp_path):
  # More than a chunk of 4 MiB, so that characters of two bytes lie across its end.
  array = np.random.default_rng(0).integers(0, 256, 5_000_001, dtype=np.uint8)
  path = tmp_path / 'file.pkl'
  path.write_bytes(pickle.dumps(array, protocol=2))
  np.testing.assert_array_equal(pickles.load(path), array, strict=True)


def test_scan_names_and_describes():
  found = pickles.scan(GOLDEN)
  assert found.unknown == {} and found.refusal == ''
  assert found.names['haiku._src.data_structures.FlatMapping'] == 1
  assert found.arrays['experiment_state/online_params/classifier/w'] == '<f4[8, 10]'
  assert len(found.arrays) == 334
  total = sum(array.nbytes for tree in (*TREES.values(), MOMENTUM) for arrays in tree.values()
              for array in arrays.values())
  assert found.num_bytes == total + 8


@pytest.mark.parametrize('ending', [b'', hostile.text('then') + hostile.entry(b'N', 'x') +
                                    b'K\x01K\x02s' + b's'], ids=['whole', 'refused_later'])
def test_scan_lists_arrays_beside_those_of_an_unknown_dtype(tmp_path, ending):
  word = hostile.call(hostile.ENCODE, hostile.text('abcd'), hostile.text('latin1'))
  array = lambda dtype: hostile.ARRAY + hostile.state(b'K\x01\x85', word, dtype) + b'b'
  strange = hostile.name('ml_dtypes', 'bfloat16')
  path = tmp_path / 'file.pkl'
  path.write_bytes(hostile.file(b'}', hostile.text('a'), array(strange), b's', hostile.text('b'),
                                array(hostile.FLOAT), b's', ending))
  found = pickles.scan(path)
  assert found.unknown == {'ml_dtypes.bfloat16': 1}
  assert [name.split('/')[-1] for name in found.arrays] == ['b']
  assert ('key of type int' if ending else 'names ml_dtypes.bfloat16') in found.refusal


def test_scan_goes_on_after_what_it_does_not_know(tmp_path):
  path = tmp_path / 'file.pkl'
  path.write_bytes(pickle.dumps(dict(a=np.zeros(3), f=json.loads, g=os.path.join), protocol=2))
  found = pickles.scan(path)
  assert found.unknown == {'json.loads': 1, 'posixpath.join': 1}
  assert found.arrays == {'a': '<f8[3]'}
  assert 'UNKNOWN' in str(found) and 'json.loads, posixpath.join' in found.refusal
  with pytest.raises(InputError, match=r'byte \d+: the file asks for json.loads'):
    pickles.load(path)


class Frozen:
  """A mapping that pickles its attributes."""

  def __init__(self, mapping):
    self._storage, self._hash = mapping, 1234


class Slotted:
  __slots__ = ('_mapping', '_hash')

  def __init__(self, mapping):
    self._mapping, self._hash = mapping, 1234


@pytest.mark.parametrize('kind', [Frozen, Slotted])
def test_mappings_of_older_haiku(tmp_path, kind):
  path, array = tmp_path / 'file.pkl', np.arange(3)
  data = pickle.dumps(kind(dict(a=kind(dict(w=array)))), protocol=2)
  path.write_bytes(data.replace(f'c{__name__}\n{kind.__name__}\n'.encode(),
                                b'chaiku._src.data_structures\nFlatMapping\n'))
  np.testing.assert_array_equal(pickles.load(path)['a']['w'], array, strict=True)


@pytest.mark.parametrize('name', ['jax.interpreters.xla\nDeviceArray',
                                  'jaxlib.xla_extension\nDeviceArray',
                                  'jax._src.array\nArrayImpl'])
def test_jaxs_array_classes(tmp_path, name):
  path, array = tmp_path / 'file.pkl', np.arange(300.)
  data = pickle.dumps(dict(a=array), protocol=2)
  path.write_bytes(data.replace(b'cnumpy\nndarray\n', f'c{name}\n'.encode()))
  np.testing.assert_array_equal(pickles.load(path)['a'], array, strict=True)
  assert name.replace('\n', '.') in pickles.scan(path).names


def test_damaged_bytes_end_in_an_error_or_in_data(tmp_path):
  # Only what `load` raises by itself passes.
  path, generator = tmp_path / 'file.pkl', np.random.default_rng(0)
  sound = np.frombuffer(GOLDEN.read_bytes(), np.uint8)
  refused = 0
  for _ in range(300):
    data = sound[:4000].copy() if generator.random() < .2 else sound.copy()
    places = generator.integers(0, min(len(data), 6000), 3)
    data[places] = generator.integers(0, 256, 3)
    path.write_bytes(data.tobytes())
    try:
      pickles.load(path)
    except InputError:
      refused += 1
    assert pickles.scan(path)
  assert refused > 200


def test_no_such_file(tmp_path):
  with pytest.raises(InputError, match='cannot be read'):
    pickles.load(tmp_path / 'none.pkl')


@pytest.mark.slow
@pytest.mark.parametrize('protocol', [2, 4])
def test_memory_and_time_of_a_resnet50(tmp_path, monkeypatch, protocol):
  section = as_json(default.get_config())['model']
  generator = np.random.default_rng(0)
  trees = jax.tree.map(lambda a: generator.integers(0, 256, a.dtype.itemsize * a.size, np.uint8
                                                    ).view(a.dtype).reshape(a.shape),
                       architecture.shapes(section, 1000))
  path = tmp_path / 'file.pkl'
  # Random bytes: half of them take two bytes as text, as those of real weights do.
  reference_files.write(path, dict(zip(reference_files.FIELDS, (trees[0], trees[0], trees[1],
                                                                trees[1]))),
                        trees[0], 7, monkeypatch, protocol=protocol, old=True)
  loaded, memory = load_alone(path, tmp_path)
  for name, array in loaded.items():
    module, leaf = name.rsplit('/', 1)
    assert array.tobytes() == trees[0][module][leaf].tobytes(), name
  assert memory < 1.5 * path.stat().st_size
