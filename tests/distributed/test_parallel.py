import chex
from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from byol_jax import files
from byol_jax.distributed import parallel
from byol_jax.errors import InputError


@pytest.fixture
def tree():
  weights = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
  return dict(weights=weights, step=np.array(7, np.int32))


@pytest.fixture
def batch():
  return dict(images=np.arange(8 * 3, dtype=np.float32).reshape(8, 3),
              labels=np.arange(8, dtype=np.int32))


def running_total(state, batch):
  mean = parallel.mean_over_devices(jnp.mean(batch['images'], axis=0))
  return dict(total=state['total'] + mean), jnp.sum(mean)


def test_replicate_puts_a_copy_on_every_device(tree, devices):
  for array, expected in zip(jax.tree.leaves(parallel.replicate(tree, devices)),
                             jax.tree.leaves(tree)):
    assert array.sharding.device_set == set(devices)
    for shard in array.addressable_shards:
      np.testing.assert_array_equal(shard.data, expected)


def test_fetch_undoes_replicate(tree, devices):
  fetched = parallel.fetch(parallel.replicate(tree, devices))
  chex.assert_trees_all_equal(fetched, tree)
  assert all(type(array) is np.ndarray and array.flags.owndata
             for array in jax.tree.leaves(fetched))


def test_shard_batch_gives_each_device_its_slice_in_order(batch, devices):
  count = len(devices)
  placed = parallel.shard_batch(batch, devices)
  for name, array in batch.items():
    assert placed[name].shape == (count, 8 // count, *array.shape[1:])
    slices = {shard.device: np.asarray(shard.data)[0] for shard in placed[name].addressable_shards}
    np.testing.assert_array_equal(np.concatenate([slices[device] for device in devices]), array)


def test_shard_batch_names_a_batch_that_does_not_divide(batch):
  with pytest.raises(InputError, match=r'^8 examples cannot be split over 3 devices\.$'):
    parallel.shard_batch(batch, jax.devices()[:3])


def test_a_step_averages_over_the_devices(batch, devices):
  step = parallel.pmap_step(running_total, devices)
  state = parallel.replicate(dict(total=jnp.zeros(3)), devices)
  for i in range(1, 3):
    state, scalar = step(state, parallel.shard_batch(batch, devices))
    expected = batch['images'].mean(axis=0)
    np.testing.assert_allclose(parallel.fetch(state)['total'], i * expected, rtol=1e-6)
    np.testing.assert_allclose(parallel.fetch(scalar), expected.sum(), rtol=1e-6)
    for shard in state['total'].addressable_shards:
      np.testing.assert_allclose(shard.data, i * expected, rtol=1e-6)


def test_a_step_uses_up_its_state_and_leaves_batch_and_fetched_copy(batch, devices):
  state = parallel.replicate(dict(total=jnp.full(3, 5.)), devices)
  copy, placed = parallel.fetch(state), parallel.shard_batch(batch, devices)
  parallel.pmap_step(running_total, devices)(state, placed)
  assert state['total'].is_deleted()
  np.testing.assert_array_equal(copy['total'], np.full(3, 5.))
  np.testing.assert_array_equal(placed['labels'].reshape(-1), batch['labels'])


def test_an_evaluation_keeps_the_device_axis_and_its_variables(batch, devices):
  variables = parallel.replicate(dict(scale=jnp.float32(2)), devices)
  evaluate = parallel.pmap_evaluation(lambda v, b: v['scale'] * b['images'], devices)
  outputs = evaluate(variables, parallel.shard_batch(batch, devices))
  assert outputs.shape == (len(devices), 8 // len(devices), 3)
  np.testing.assert_array_equal(outputs.reshape(8, 3), 2 * batch['images'])
  assert not variables['scale'].is_deleted()


@pytest.mark.parametrize('batch_size, virtual_shards', [(4, 1), (8, 8), (24, 8), (4096, 8)])
def test_batch_sizes_that_divide(batch_size, virtual_shards):
  parallel.check_batch_size(batch_size, virtual_shards)


@pytest.mark.parametrize('batch_size, virtual_shards, what, nearest', [
    (10, 2, '4 devices', (8, 12)),
    (3, 1, '4 devices', (4,)),
    (12, 8, r'8 virtual shards \(data\.virtual_shards\)', (8, 16)),
    (4, 8, r'8 virtual shards \(data\.virtual_shards\)', (8,)),
    (10, 8, '4 devices', (8, 16)),
])
def test_a_batch_size_that_does_not_divide_names_those_that_do(
    batch_size, virtual_shards, what, nearest):
  sizes = ' or '.join(map(str, nearest))
  with pytest.raises(InputError, match=f'^train.batch_size is {batch_size}, which {what} do not '
                                       f'divide; the nearest sizes that work are {sizes}\\.$'):
    parallel.check_batch_size(batch_size, virtual_shards)
  for size in nearest:
    parallel.check_batch_size(size, virtual_shards)


def test_an_object_store_that_does_not_answer_is_one_line(monkeypatch):
  class Path(type(epath.Path('gs://bucket/run'))):
    def exists(self):
      raise tf.errors.FailedPreconditionError(None, None, f'No host\n\t at {self}')

  monkeypatch.setattr(files, 'folder', Path)
  with pytest.raises(InputError) as error:
    files.writable_folder('gs://bucket/run')
  assert str(error.value) == ('The workdir gs://bucket/run cannot be used: No host at '
                              'gs://bucket/run. Check the address, the network and the '
                              'credentials.')
  assert not files.is_of_store(ValueError('gs://bucket'))
  assert not files.is_of_store(tf.errors.InternalError(None, None, 'a bug'))


def test_writable_folder_makes_the_folder_and_leaves_nothing_in_it(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.chdir(tmp_path)
  for given in ('~/runs/first', 'runs/first', tmp_path / 'runs' / 'first'):
    assert files.writable_folder(given) == tmp_path / 'runs' / 'first'
  assert list((tmp_path / 'runs' / 'first').iterdir()) == []


def test_a_folder_below_a_file_is_not_writable(tmp_path):
  (tmp_path / 'file').write_text('kept')
  with pytest.raises(InputError, match=r'file/run is not writable \(Not a directory\); give '
                                       'another --workdir'):
    files.writable_folder(tmp_path / 'file' / 'run')
  assert (tmp_path / 'file').read_text() == 'kept'


def test_one_process_is_the_first():
  assert parallel.is_first_process()


@pytest.mark.parametrize('given, message', [
    (dict(num_processes=2), 'together'),
    (dict(coordinator_address='a:1', process_id=0), 'together'),
    (dict(coordinator_address='a:1', num_processes=2, process_id=2), 'it can be 0 to 1'),
    (dict(coordinator_address='a:1', num_processes=2, process_id=-1), 'it can be 0 to 1')])
def test_half_a_job_is_refused_before_anything_is_joined(given, message):
  with pytest.raises(InputError, match=message):
    parallel.initialize(**given)


def test_one_process_is_a_job_of_its_own(capsys):
  rows = np.arange(6).reshape(3, 2)
  assert parallel.gather_rows(rows) is rows and parallel.from_first_process(7) == 7
  parallel.barrier('nobody else')
  parallel.print_once('a line')
  assert capsys.readouterr().out == 'a line\n'


def test_rows_that_no_process_has_are_gathered_as_none(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(parallel.multihost_utils, 'process_allgather', lambda x: np.stack([x, x]))
  nothing = parallel.gather_rows(np.zeros((0, 3), np.int32))
  assert nothing.shape == (0, 3) and nothing.dtype == np.int32
  assert parallel.gather_rows(np.arange(2)).tolist() == [0, 1, 0, 1]


def test_paths_of_object_stores_stay_as_they_are():
  assert str(files.folder('gs://bucket/run')) == 'gs://bucket/run'
  assert str(files.folder('gs://bucket/run') / 'checkpoints') == 'gs://bucket/run/checkpoints'


def test_local_paths_become_absolute(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert str(files.folder('run')) == str(files.folder('~/run')) == f'{tmp_path}/run'
