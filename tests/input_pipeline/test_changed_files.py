"""Runs and evaluations whose data change, move or come back, from a run on a folder of images."""

import os
import re
import shutil
import types

import jax
import numpy as np
from PIL import Image
import pytest

from byol_jax import checkpoint, evaluate, train, train_step
from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from byol_jax.input_pipeline import fingerprint, loading
from byol_jax.sweep import points as sweep
from tests import tiny

CLASSES, EACH = 'ab', 40


def write_images(folder, seed=0):
  rng = np.random.default_rng(seed)
  for name in CLASSES:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(EACH):
      Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(
          folder / name / f'{i:02}.bmp')


def folder_config(folder, **overrides):
  config = tiny.config(evals__every_epochs=0., train__stop_at_step=1, **overrides).unlock()
  config.data.dataset = 'image_folder'
  config.data.options = plugin_options('datasets', 'image_folder')
  config.data.options.train, config.data.pipeline = str(folder), 'tf_data'
  return config


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
  """`images`, on which a run was begun, `twin` with equal files and times, the workdir `run`."""
  root = tmp_path_factory.mktemp('begun')
  write_images(root / 'images')
  shutil.copytree(root / 'images', root / 'twin')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, '_run', save)
    train.pretrain(folder_config(root / 'images'), root / 'run')
  return root


def save(job, state):
  """In place of a run's loop: the state at initialisation as that of step 1."""
  with checkpoint.saving(job.workdir, keep_last=1, keep_best=1) as checkpoints:
    checkpoint.save(checkpoints, jax.device_get(state)._replace(step=np.int32(1)), job.meta, {})


@pytest.fixture
def folder(begun):
  """The run's own folder, as it was when the test ends."""
  yield begun / 'images'
  shutil.rmtree(begun / 'images', ignore_errors=True)
  shutil.copytree(begun / 'twin', begun / 'images')


@pytest.fixture
def workdir(begun, tmp_path, monkeypatch):
  """A copy of the run's workdir, where what comes after the checks of a resume is left out."""
  state = lambda step: types.SimpleNamespace(step=step)
  monkeypatch.setattr(train_step, 'init_state', lambda *_: state(0))
  monkeypatch.setattr(jax, 'jit', lambda function: function)
  monkeypatch.setattr(jax, 'eval_shape', lambda *_: None)
  monkeypatch.setattr(checkpoint, 'restore', lambda workdir, like, step: [state(step)])
  monkeypatch.setattr(train, '_announce', lambda *_: None)
  monkeypatch.setattr(train, '_run', lambda job, state: state.step)
  return shutil.copytree(begun / 'run', tmp_path / 'run')


def resumed(folder, workdir, **overrides):
  return train.pretrain(folder_config(folder, **overrides), workdir)


def refused(folder, workdir, **overrides):
  with pytest.raises(InputError) as error:
    resumed(folder, workdir, **overrides)
  return str(error.value)


def test_one_more_image_is_refused_until_it_is_accepted(folder, workdir, capsys):
  shutil.copy(folder / 'a/00.bmp', folder / 'b/new.bmp')
  assert refused(folder, workdir) == (
      f'The data files have changed since the run in {workdir} began: 1 added '
      '(train/b/new.bmp). Images that were held out could be trained on. Restore the files, give '
      'another --workdir to start again, or give --config.data.changed_files=accept to continue '
      'with the changed files.')
  capsys.readouterr()
  # The number of training images changes with it.
  for name in ('x', 'y'):
    shutil.copy(folder / 'a/00.bmp', folder / f'b/{name}.bmp')
  assert resumed(folder, workdir, data__changed_files='accept') == 1
  assert ('data.changed_files=accept: continuing with changed data files: 3 added '
          '(train/b/new.bmp, train/b/x.bmp, train/b/y.bmp)\n') in capsys.readouterr().out
  # Once is enough.
  assert resumed(folder, workdir) == 1


def test_half_of_the_images_overwritten_under_their_names(folder, workdir):
  for i in range(0, EACH, 2):
    for name in CLASSES:
      shutil.copy(folder / name / f'{i + 1:02}.bmp', folder / name / f'{i:02}.bmp')
  message = refused(folder, workdir)
  assert re.search(r': 40 changed \(train/a/00.bmp, train/a/02.bmp, train/a/04.bmp, \.\.\.\), '
                   r'\d of which differ only in their modification times', message), message


def test_gone_and_half_copied_images_are_named(folder, workdir):
  (folder / 'a/03.bmp').unlink()
  (folder / 'b/00.bmp').write_bytes((folder / 'b/00.bmp').read_bytes()[:50])
  assert '1 gone (train/a/03.bmp), 1 changed (train/b/00.bmp). ' in refused(folder, workdir)


def test_data_that_are_deleted_are_said_to_be(folder, workdir):
  shutil.rmtree(folder)
  assert refused(folder, workdir) == f'{folder}: no such folder (data.options.train).'


def test_another_config_comes_before_other_files(folder, workdir):
  (folder / 'a/03.bmp').unlink()
  message = refused(folder, workdir, train__base_tau=.5)
  assert 'train.base_tau: 0.996 -> 0.5' in message and 'train/a/03.bmp' not in message


def test_the_memory_pipeline_notices_it_too(folder, workdir):
  (folder / 'a/03.bmp').unlink()
  config = folder_config(folder)
  config.data.pipeline = 'memory'
  files = loading.load(config.data, 'train', purpose='a test', workdir=workdir).origin()
  assert files.names[2:4] == ['train/a/02.bmp', 'train/a/04.bmp']


def test_a_class_more_cannot_be_accepted_and_leaves_the_record(folder, workdir):
  shutil.copytree(folder / 'a', folder / 'c')
  before = (workdir / fingerprint.RECORD).read_bytes()
  assert '40 added (train/c/00.bmp, ' in refused(folder, workdir)
  assert ('These keys differ (saved -> given):\n  resolved.num_classes: 2 -> 3\n'
          in refused(folder, workdir, data__changed_files='accept'))
  assert (workdir / fingerprint.RECORD).read_bytes() == before


@pytest.mark.parametrize('spelled', ['{}/', '{}/../images', '~/images', 'images'])
def test_the_same_folder_in_other_words(folder, workdir, spelled, monkeypatch):
  monkeypatch.setenv('HOME', str(folder.parent))
  monkeypatch.chdir(folder.parent)
  before = (workdir / fingerprint.RECORD).read_bytes()
  assert resumed(spelled.format(folder), workdir) == 1
  assert (workdir / fingerprint.RECORD).read_bytes() == before


def test_moved_data_resume_and_are_recorded_where_they_are(folder, workdir, tmp_path, capsys):
  # Without the times, as by cp -r.
  moved = shutil.copytree(folder, tmp_path / 'moved', copy_function=shutil.copyfile)
  assert resumed(moved, workdir) == 1
  assert ('the data files have moved or have other modification times; their names and sizes '
          '(80 files) and the contents of 64 of them are unchanged\n'
          ) in capsys.readouterr().out
  # From now on times count there.
  (drawn, *_), names = fingerprint.read(workdir).checksums, fingerprint.read(workdir).names
  other = next(name for name in names if name not in fingerprint.read(workdir).checksums)
  for name in (drawn, other):
    os.utime(moved / name.removeprefix('train/'), ns=(0, 0))
  assert f': 1 changed ({other}), 1 of which differ only in their mod' in refused(moved, workdir)


def test_other_images_under_another_path_are_refused(workdir, tmp_path):
  write_images(tmp_path / 'other', seed=1)
  assert ': 64 changed (train/a/' in refused(tmp_path / 'other', workdir)


def test_a_folder_of_held_out_images_is_part_of_the_run(folder, workdir, begun):
  config = folder_config(folder)
  config.data.options.validation = str(begun / 'twin')
  with pytest.raises(InputError, match=r'data.options.validation: None -> \(a path\)'):
    train.pretrain(config, workdir)


def test_a_run_without_its_record_makes_one(folder, workdir, capsys):
  whole = (workdir / fingerprint.RECORD).read_bytes()
  (workdir / fingerprint.RECORD).unlink()
  assert resumed(folder, workdir) == 1
  line = f'{workdir} has no readable {fingerprint.RECORD}: the data files are recorded now'
  assert capsys.readouterr().out.count(line) == 1
  assert fingerprint.read(workdir).checksums
  # A damaged one is an error, since nothing can be compared with it; or is accepted.
  (workdir / fingerprint.RECORD).write_bytes(whole[:99])
  assert 'is damaged' in refused(folder, workdir)
  assert resumed(folder, workdir, data__changed_files='accept') == 1
  assert capsys.readouterr().out.count(line) == 1
  assert resumed(folder, workdir) == 1


def test_a_run_that_begins_anew_writes_its_record_anew(folder, workdir):
  shutil.rmtree(workdir / 'checkpoints')
  (workdir / fingerprint.RECORD).write_bytes(b'cut')
  (folder / 'a/03.bmp').unlink()
  assert resumed(folder, workdir) == 0
  assert len(fingerprint.read(workdir).names) == 79


def evaluation(**data):
  config = tiny.eval_config(encoders=('pixels',)).unlock()
  config.evaluators = {'knn': config.evaluators.knn}
  config.data.update(data)
  return config


def test_an_evaluation_on_changed_data_is_refused(folder, begun, tmp_path, capsys):
  # Test images of which the pretraining has not known.
  where = f'test={begun / "twin"}'
  (folder / 'a/03.bmp').unlink()
  with pytest.raises(InputError) as error:
    evaluate.evaluate(evaluation(locations=where), begun / 'run', tmp_path)
  assert str(error.value) == (
      f'The data files have changed since the encoder of {begun / "run"} was trained: '
      '1 gone (train/a/03.bmp). Images that are held out now could have been trained on. Restore '
      'the files, or give --config.data.changed_files=accept to evaluate with the changed files.')
  evaluate.evaluate(evaluation(locations=where, changed_files='accept'), begun / 'run', tmp_path)
  assert ('data.changed_files=accept: evaluating with data files that have changed since the '
          'encoder was trained: 1 gone (train/a/03.bmp)\n') in capsys.readouterr().out


def test_an_evaluation_finds_data_that_lie_elsewhere(begun, tmp_path):
  moved = shutil.copytree(begun / 'twin', tmp_path / 'moved')
  found = evaluate.evaluate(evaluation(locations=f'train={moved},test={begun / "images"}'),
                            begun / 'run', tmp_path / 'evaluation')
  assert found['images'] == dict(train=72, validation=8, test=80)
  with pytest.raises(InputError, match="data.locations has 'labels=none'"):
    evaluate.evaluate(evaluation(locations='labels=none'), begun / 'run', tmp_path)


def test_points_of_a_sweep_are_the_same_wherever_the_data_lie(tmp_path):
  def points(get_hyper, folder, **overrides):
    return sweep.points(lambda: folder_config(folder), get_hyper, config_path='c.py',
                        overrides=overrides, workdir=tmp_path)

  seeds = lambda hyper: hyper.sweep('config.seed', [0, 1])
  one, moved = points(seeds, '/a'), points(seeds, '/b')
  assert [point.digest for point in one] == [point.digest for point in moved]
  assert '--config.data.locations=train=/b' in moved[0].stages[1].arguments
  # Who sweeps over folders wants a run for each.
  folders = points(lambda hyper: hyper.sweep('config.data.options.train', ['/a', '/b']), '/a')
  assert len({point.digest for point in folders}) == 2
