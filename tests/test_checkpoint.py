"""Checkpoints: round trips, digests, damage, what is kept."""

import functools
import json
import pathlib
import pickle

from etils import epath
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from byol_jax import checkpoint, files, tensors
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline import file_kinds
from byol_jax.optimizers import lars
from byol_jax.train_step import TrainState

META = dict(config=dict(seed=1), resolved=dict(num_classes=3))


@functools.cache
def make_state(step, width=5):
  rng = np.random.default_rng(step)
  tree = lambda: {'encoder/~/conv': {'w': rng.normal(size=(3, 4)).astype(np.float32)},
                  'projector/linear': {'w': rng.normal(size=(4, width)).astype(np.float32),
                                       'b': np.zeros(width, np.float32)}}
  params = tree()
  opt_state = lars.build(weight_decay=0., eta=1e-3, momentum=.9).init(params)
  statistics = lambda: {'encoder/~/norm/~/mean_ema': {
      'counter': np.int32(step), 'average': rng.normal(size=3).astype(np.float32)}}
  return TrainState(np.int32(step), params, tree(), statistics(), statistics(),
                    optax.tree.set(opt_state, trace=tree()))


def save(workdir, *saves, keep_last=2, keep_best=1):
  with checkpoint.saving(workdir, keep_last=keep_last, keep_best=keep_best) as checkpoints:
    for step, metrics in saves:
      checkpoint.save(checkpoints, make_state(step), META, metrics)


@pytest.fixture
def saved(tmp_path):
  save(tmp_path, (1, {}), (2, {}))
  return tmp_path


def assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_a_restored_state_is_the_saved_one(saved):
  state, meta = checkpoint.restore(saved, make_state(7))
  assert_equal(state, make_state(2))
  assert meta['step'] == 2 and meta['config'] == META['config']
  assert_equal(checkpoint.restore(saved, make_state(7), step=1)[0], make_state(1))


@pytest.mark.parametrize('count', [1, 2, 4])
def test_a_restored_state_goes_on_any_number_of_devices(saved, count):
  state, _ = checkpoint.restore(saved, make_state(7))
  placed = parallel.replicate(state, jax.devices()[:count])
  assert len(placed.online_params['encoder/~/conv']['w'].sharding.device_set) == count
  assert_equal(parallel.fetch(placed), make_state(2))


def test_digests_tell_values_shapes_dtypes_and_names_apart():
  tree = {'a': {'w': np.arange(6, dtype=np.float32).reshape(2, 3)}}
  others = [{'a': {'w': tree['a']['w'] + np.float32(1e-7)}}, {'a': {'w': tree['a']['w'].T}},
            {'a': {'w': tree['a']['w'].reshape(3, 2)}}, {'a': {'v': tree['a']['w']}},
            {'a': {'w': tree['a']['w'].view(np.int32)}}]
  assert len({tensors.digest(t) for t in [tree, *others]}) == 6
  assert tensors.digest(tree) == tensors.digest({'a': {'w': jnp.asarray(tree['a']['w'])}})


def test_keeps_the_newest_and_the_best(tmp_path):
  scores = [.1, .9, .3, .2]
  save(tmp_path, *[(i, {'knn/top1': score}) for i, score in enumerate(scores)])
  assert checkpoint.steps(tmp_path) == [1, 2, 3]
  # Reopened: the scores of earlier processes still count.
  save(tmp_path, (4, {}), (5, {'knn/top1': .5}))
  assert checkpoint.steps(tmp_path) == [1, 4, 5]


def files_of(workdir, step):
  return sorted(p for p in (workdir / 'checkpoints' / str(step)).rglob('*')
                if p.is_file() and p.stat().st_size)


def flipped(content):
  damaged = bytearray(content)
  damaged[len(damaged) // 2] ^= 4
  return bytes(damaged)


DAMAGES = dict(flipped=flipped, truncated=lambda content: content[:len(content) // 2],
               emptied=lambda _: b'', deleted=None)


# Orbax's reader threads outlive the loop of a read that failed.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize('kind', DAMAGES)
def test_a_damaged_file_gives_equal_trees_or_a_named_fallback(saved, capfd, kind):
  """Each file of the newest checkpoint damaged: never a silently wrong tree."""
  fallbacks = 0
  for path in files_of(saved, 2):
    intact = path.read_bytes()
    if DAMAGES[kind]:
      path.write_bytes(DAMAGES[kind](intact))
    else:
      path.unlink()
    capfd.readouterr()
    state, meta = checkpoint.restore(saved, make_state(7))
    assert_equal(state, make_state(meta['step']))
    assert meta['config'] == META['config']
    warning = capfd.readouterr().err
    if meta['step'] == 1:
      fallbacks += 1
      assert f"WARNING {saved / 'checkpoints' / '2'}: " in warning and 'is damaged' in warning
      assert checkpoint.verify(saved, 2) and not checkpoint.verify(saved, 1)
      with pytest.raises(InputError, match='is damaged'):
        checkpoint.restore(saved, make_state(7), step=2)
    else:
      assert 'WARNING' not in warning and not checkpoint.verify(saved, 2)
    path.write_bytes(intact)
  assert fallbacks >= len(checkpoint.TREES) + 1
  assert_equal(checkpoint.restore(saved, make_state(7))[0], make_state(2))


def test_a_read_that_fails_in_passing_is_no_damage(saved, monkeypatch, capsys):
  import orbax.checkpoint as ocp
  real, errors = ocp.StandardCheckpointHandler.restore, [OSError(5, 'Input/output error')] * 2

  def restore(*args, **kwargs):
    if errors:
      raise errors.pop()
    return real(*args, **kwargs)

  monkeypatch.setattr(ocp.StandardCheckpointHandler, 'restore', restore)
  monkeypatch.setattr(checkpoint.time, 'sleep', lambda _: None)
  assert checkpoint.restore(saved, make_state(7))[1]['step'] == 2
  assert 'WARNING' not in capsys.readouterr().err
  errors.append(PermissionError(13, 'Permission denied'))
  with pytest.raises(InputError, match='cannot be read .PermissionError'):
    checkpoint.latest_valid_step(saved)


@pytest.mark.parametrize('change', [
    dict(digests=None), dict(digests=[]), dict(digests={}), dict(step=1)], ids=str)
def test_a_meta_of_another_form_is_damage(saved, change):
  file = saved / 'checkpoints' / '2' / 'meta' / 'metadata'
  file.write_text(json.dumps(json.loads(file.read_text()) | change))
  assert 'meta is damaged' in checkpoint.verify(saved, 2)
  assert checkpoint.latest_valid_step(saved) == 1


def test_a_checkpoint_under_another_number_is_damage(saved):
  (saved / 'checkpoints' / '2').rename(saved / 'checkpoints' / '9')
  assert checkpoint.latest_valid_step(saved) == 1


@pytest.mark.parametrize('name', ['0025', '\N{SUPERSCRIPT TWO}', '-3', 'latest', '7.tmp'])
def test_other_names_are_no_checkpoints(saved, name):
  (saved / 'checkpoints' / name).mkdir()
  assert checkpoint.steps(saved) == [1, 2]


def test_in_an_object_store_a_checkpoint_is_one_when_it_is_committed(saved, monkeypatch):
  monkeypatch.setattr(files, 'in_object_store', lambda path: True)
  monkeypatch.setattr(files, 'folder', epath.Path)
  assert checkpoint.steps(saved) == [1, 2]
  (saved / 'checkpoints' / '2' / checkpoint.COMMITTED).unlink()
  assert checkpoint.steps(saved) == [1]


def test_a_step_that_is_there_already_is_not_skipped_in_silence(saved):
  with pytest.raises(checkpoint.SaveFailed, match='Step 1 was not saved'):
    save(saved, (1, {}))


def test_the_loss_of_a_process_is_not_called_a_full_disk(saved, monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match='Gloo'), checkpoint._as_save_failed(saved):
    raise ValueError('UNKNOWN: Gloo AllGather failed: Connection reset by peer')
  with pytest.raises(checkpoint.SaveFailed), checkpoint._as_save_failed(saved):
    raise ValueError('No space left on device')


def test_without_a_sound_checkpoint_nothing_is_restored(saved):
  for step in (1, 2):
    max(files_of(saved, step), key=lambda p: p.stat().st_size).unlink()
  with pytest.raises(InputError, match='None of the 2 checkpoints .* is valid'):
    checkpoint.restore(saved, make_state(7))


def test_what_is_quarantined_is_kept(saved, capsys):
  checkpoint.quarantine(saved, after=1)
  assert checkpoint.steps(saved) == [1] and (saved / 'damaged_checkpoints' / '2.0').is_dir()
  assert 'step 2 was moved to' in capsys.readouterr().err
  save(saved, (2, {}))
  checkpoint.quarantine(saved, after=1)
  assert (saved / 'damaged_checkpoints' / '2.1').is_dir()


def test_another_architecture_lists_the_tensors(saved):
  with pytest.raises(InputError) as error:
    checkpoint.restore(saved, make_state(7, width=6))
  assert 'projector/linear/w: saved float32[4, 5], wanted float32[4, 6]' in str(error.value)
  assert 'conv' not in str(error.value)


def test_no_checkpoint_and_no_such_step_are_said(saved, tmp_path):
  with pytest.raises(InputError, match='No checkpoint in'):
    checkpoint.read_meta(tmp_path / 'elsewhere')
  with pytest.raises(InputError, match='no|No checkpoint of step 9.*1, 2'):
    checkpoint.read_meta(saved, 9)


@pytest.mark.parametrize('name, content, message', [
    ('r 18.v2.pth', b'\x80\x02\x8a\x0a' + file_kinds.TORCH_MAGIC,
     "{0} is a file of torch.save, not the folder of a run. Convert it, then give the new folder: "
     "python -m experiments.convert from_torch --input='{0}' --workdir='{1}/r 18_run'"),
    ('a.pkl', pickle.dumps({}), '{0} is a Python pickle, not the folder of a run. Convert it, '
     'then give the new folder: python -m experiments.convert from_deepmind --input={0} '
     '--workdir={1}/a_run'),
    ('a.npz', b'\x93NUMPY\1', '{0} is a NumPy array (.npy), not the folder of a run; give the '
     '--workdir of a pretraining. To use other weights, convert them first: python -m '
     'experiments.convert reads safetensors files, files of torch.save and pickles from '
     'DeepMind.')])
def test_weights_of_others_are_no_run_and_the_command_that_reads_them_is_named(
    tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError) as error:
    checkpoint.restore_trees(tmp_path / name, ('online',))
  assert str(error.value) == message.format(tmp_path / name, tmp_path)


def test_an_unfinished_save_is_no_checkpoint_and_goes(saved):
  unfinished = saved / 'checkpoints' / '17.orbax-checkpoint-tmp'
  unfinished.mkdir()
  assert checkpoint.steps(saved) == [1, 2]
  save(saved, (3, {}))
  assert not unfinished.exists()
  assert checkpoint.steps(saved) == [2, 3]
  assert_equal(checkpoint.restore(saved, make_state(7))[0], make_state(3))


def test_saving_does_not_flood_the_log(tmp_path, capfd, caplog):
  from absl import logging
  logging.set_verbosity(logging.INFO)
  try:
    save(tmp_path, (1, {}))
  finally:
    logging.set_verbosity(logging.WARNING)
  captured = capfd.readouterr()
  assert len((captured.out + captured.err).splitlines()) < 5


def test_workdirs_may_be_strings_and_relative(saved, monkeypatch):
  monkeypatch.chdir(saved.parent)
  assert checkpoint.steps(saved.name) == checkpoint.steps(pathlib.Path(saved)) == [1, 2]
