"""A whole run in this process: logs, resume, errors."""

import itertools
import json
import os
import signal

import jax
from jax import monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import checkpoint, metric_log, monitor, train
from byol_jax.distributed import parallel, preemption, processes
from byol_jax.encoder import load_encoder
from byol_jax.errors import InputError
from byol_jax.input_pipeline import memory
from byol_jax.input_pipeline.records import DataError
from tests import tiny


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A run of 12 steps that never stopped, and its final state."""
  workdir = tmp_path_factory.mktemp('finished')
  return workdir, train.pretrain(tiny.config(), workdir)


def digests(workdir, step=None):
  return checkpoint.read_meta(workdir, step)['digests']


def test_a_run_leaves_what_it_promises(finished):
  workdir, state = finished
  assert state.step == 12
  assert checkpoint.steps(workdir)[-1] == 12
  assert (workdir / 'views.png').read_bytes().startswith(b'\x89PNG')
  assert list((workdir / 'tensorboard').iterdir())
  resolved = json.loads((workdir / 'config.json').read_text())['resolved']
  assert resolved['max_steps'] == 12
  assert resolved['warmup_steps'] == 4
  assert resolved['peak_learning_rate'] == 1 / 16
  assert resolved['steps_per_epoch'] == 4
  assert set(resolved['parameters']) == {'encoder', 'projector', 'predictor', 'classifier'}


def test_pretraining_never_reads_the_test_split(finished):
  log = (finished[0] / 'splits_read.jsonl').read_text().splitlines()
  assert {json.loads(line)['split'] for line in log} == {'train', 'validation'}


def test_scalars_are_logged_at_their_steps(finished):
  records = metric_log.read(finished[0])
  steps = [record['step'] for record in records if 'train/loss' in record]
  assert steps == [3, 6, 9, 12]
  evaluated = [record for record in records if 'knn/top1' in record]
  assert [record['step'] for record in evaluated] == [1, 8, 12]
  for name, most in (('effective_rank', 20), ('rankme', 20), ('largest_share', 1)):
    assert all(0 < record[f'embeddings/{name}'] <= most for record in evaluated)
  spectra = [r['embeddings/spectrum'] for r in records if 'embeddings/spectrum' in r]
  assert len(spectra) == 3 and all(sum(values) == pytest.approx(1, abs=1e-3) for values in spectra)
  last = next(r for r in records if r['step'] == 12 and 'train/loss' in r)
  assert 0 <= last['train/byol_loss'] <= 8
  assert last['epoch'] == 3
  assert {'collapse/std', 'collapse/effective_rank', 'collapse/projection_norm',
          'time/images_per_second', 'time/data_wait_share', 'train/top1'} <= set(last)


def test_resuming_gives_the_digests_of_a_run_that_never_stopped(finished, tmp_path, monkeypatch):
  config = tiny.config()
  save, saved = checkpoint.save, []

  def save_then_die(checkpoints, state, *args):
    save(checkpoints, state, *args)
    saved.append(int(state.step))
    if len(saved) == 1:
      raise KeyboardInterrupt

  monkeypatch.setattr(checkpoint, 'save', save_then_die)
  with pytest.raises(KeyboardInterrupt):
    train.pretrain(config, tmp_path)
  train.pretrain(config, tmp_path)
  assert saved == [4, 8, 12]
  assert digests(tmp_path) == digests(finished[0])
  steps = [r['step'] for r in metric_log.read(tmp_path) if 'train/loss' in r]
  assert steps == [3, 6, 9, 12]


def test_a_second_run_in_the_workdir_is_refused_and_touches_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(processes, 'PATIENCE', 0.)
  with processes.lock_workdir(tmp_path), pytest.raises(InputError, match='runs in the workdir'):
    train.pretrain(tiny.config(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == [processes.LOCK]


def test_images_on_the_device_train_as_those_of_the_host_do(finished, tmp_path):
  state = train.pretrain(tiny.config(data__pipeline='device', train__stop_at_step=4), tmp_path)
  assert (tmp_path / 'views.png').read_bytes() == (finished[0] / 'views.png').read_bytes()
  first = [next(r for r in metric_log.read(workdir) if 'train/loss' in r)
           for workdir in (tmp_path, finished[0])]
  assert first[0]['train/loss'] == pytest.approx(first[1]['train/loss'], rel=1e-5)
  assert state.step == 4


# Five steps, evaluated after the third.
DISPATCHED = dict(train__steps_per_dispatch=2, train__epochs=1.25, train__warmup_epochs=.25,
                  evals__every_epochs=.75)


@pytest.fixture(scope='module')
def dispatched(tmp_path_factory):
  """The run in dispatches of 2 steps, and one of the last."""
  workdir = tmp_path_factory.mktemp('dispatched')
  return workdir, train.pretrain(tiny.config(**DISPATCHED), workdir)


@pytest.mark.slow
def test_logs_evaluations_and_checkpoints_come_after_the_dispatch_of_their_step(dispatched):
  records = metric_log.read(dispatched[0])
  assert [r['step'] for r in records if 'train/loss' in r] == [4, 5]
  assert [r['step'] for r in records if 'knn/top1' in r] == [2, 4, 5]
  assert checkpoint.steps(dispatched[0]) == [4, 5]
  assert dispatched[1].step == 5


@pytest.mark.slow
def test_steps_of_one_dispatch_train_as_single_ones_do(dispatched, tmp_path):
  state = train.pretrain(tiny.config(**DISPATCHED | dict(train__steps_per_dispatch=1)), tmp_path)
  # Compiled together the steps are rounded otherwise.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
               state.online_params, dispatched[1].online_params)


@pytest.mark.slow
def test_dispatches_are_the_same_after_a_resume(dispatched, tmp_path):
  assert train.pretrain(tiny.config(**DISPATCHED, train__stop_at_step=2), tmp_path).step == 2
  assert train.pretrain(tiny.config(**DISPATCHED), tmp_path).step == 5
  assert digests(tmp_path) == digests(dispatched[0])


def test_nothing_is_compiled_after_the_first_step(tmp_path, monkeypatch):
  compiled, at_calls = [], []
  monitoring.register_event_duration_secs_listener(
      lambda name, *_, **__: compiled.append(name) if 'backend_compile' in name else None)
  pmap_step = parallel.pmap_step

  def counting(*arguments):
    step = pmap_step(*arguments)

    def call(*inputs):
      before = len(compiled)
      outputs = step(*inputs)
      at_calls.append((before, len(compiled)))
      return outputs
    return call

  monkeypatch.setattr(parallel, 'pmap_step', counting)
  train.pretrain(tiny.config(evals__every_epochs=0.), tmp_path)
  monitoring.clear_event_listeners()
  (before, after), *later = at_calls
  assert after > before and len(later) == 11
  # Neither by the step nor by logs and checkpoints between two steps.
  assert all(call == (after, after) for call in later)


def test_a_finished_run_does_nothing_more(finished):
  workdir, _ = finished
  before = digests(workdir)
  assert train.pretrain(tiny.config(), workdir).step == 12
  assert digests(workdir) == before


def test_resuming_with_another_config_lists_the_keys(finished):
  with pytest.raises(InputError) as error:
    train.pretrain(tiny.config(train__base_tau=.5, view1__hue=.2), finished[0])
  message = str(error.value)
  assert 'train.base_tau: 0.996 -> 0.5' in message
  assert 'view1.hue: 0.1 -> 0.2' in message
  assert 'train.epochs' not in message


@pytest.mark.slow
def test_resuming_with_other_data_under_the_same_path_is_refused(tmp_path):
  config = tiny.config(train__epochs=1.0, train__warmup_epochs=.5, evals__every_epochs=0.).unlock()
  config.data.dataset = 'arrays'
  config.data.options = array_options(tmp_path / 'images.npy')
  images = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
  np.save(tmp_path / 'images.npy', images)
  train.pretrain(config, tmp_path / 'run')
  np.save(tmp_path / 'images.npy', images[:40])
  with pytest.raises(InputError, match=rf': 1 changed \(images: {tmp_path}/images.npy\)\. '):
    train.pretrain(config, tmp_path / 'run')


def test_logging_keys_may_change_on_resume(finished):
  assert train.pretrain(tiny.config(log__every_steps=5, checkpoint__keep_last=3),
                        finished[0]).step == 12


def test_a_run_that_was_told_to_stop_goes_on_as_if_it_had_not(finished, tmp_path):
  assert train.pretrain(tiny.config(train__stop_at_step=5), tmp_path).step == 5
  assert checkpoint.steps(tmp_path)[-1] == 5
  # The schedules are those of all epochs.
  rates = [next(r['train/learning_rate'] for r in metric_log.read(workdir) if r['step'] == 3)
           for workdir in (tmp_path, finished[0])]
  assert rates[0] == rates[1]
  assert train.pretrain(tiny.config(), tmp_path).step == 12
  assert digests(tmp_path) == digests(finished[0])


def test_sigterm_ends_the_run_with_a_checkpoint_and_it_goes_on(finished, tmp_path, monkeypatch):
  report = monitor.Monitor.report

  def report_and_ask(watch, step):
    if step == 3:
      os.kill(os.getpid(), signal.SIGTERM)
    return report(watch, step)

  monkeypatch.setattr(monitor.Monitor, 'report', report_and_ask)
  with pytest.raises(preemption.Preempted) as stop:
    train.pretrain(tiny.config(), tmp_path)
  step = checkpoint.steps(tmp_path)[-1]
  assert 3 < step < 12 and f'after step {step} of 12' in str(stop.value)
  monkeypatch.undo()
  assert train.pretrain(tiny.config(), tmp_path).step == 12
  assert digests(tmp_path) == digests(finished[0])


@pytest.mark.parametrize('purpose, step', [('training', 6), ('validation', 1)])
def test_what_came_before_an_image_that_cannot_be_read_is_saved(
    finished, tmp_path, monkeypatch, purpose, step):
  batches, evaluate_knn = memory.Split.train_batches, train._evaluation

  def broken(*_):
    raise DataError('x.jpg cannot be read as an image.')

  def until_the_eighth(*args, **options):
    # Two batches are placed before they are asked for.
    yield from itertools.islice(batches(*args, **options), 8)
    broken()

  if purpose == 'training':
    monkeypatch.setattr(memory.Split, 'train_batches', until_the_eighth)
  else:
    monkeypatch.setattr(train, '_evaluation', lambda *_: broken)
  with pytest.raises(InputError) as error:
    train.pretrain(tiny.config(checkpoint__every_epochs=0.), tmp_path)
  assert str(error.value) == (f'x.jpg cannot be read as an image. The checkpoint of step {step} is '
                              'saved; run the same command to resume from it.')
  assert checkpoint.steps(tmp_path) == [step]
  monkeypatch.setattr(memory.Split, 'train_batches', batches)
  monkeypatch.setattr(train, '_evaluation', evaluate_knn)
  assert train.pretrain(tiny.config(), tmp_path).step == 12
  assert digests(tmp_path) == digests(finished[0])


def test_several_processes_save_nothing_that_the_others_do_not_know_of(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(DataError), train._rescuing(None, None, None, None, 6):
    raise DataError('x.jpg cannot be read as an image.')


def test_a_damaged_newest_checkpoint_is_quarantined_and_the_run_is_the_same(
    finished, tmp_path, capfd):
  train.pretrain(tiny.config(train__stop_at_step=9), tmp_path)
  assert checkpoint.steps(tmp_path) == [8, 9]
  for path in (tmp_path / 'checkpoints' / '9' / 'online').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:-1])
  assert train.pretrain(tiny.config(), tmp_path).step == 12
  assert digests(tmp_path) == digests(finished[0])
  assert (tmp_path / 'damaged_checkpoints' / '9.0').is_dir()
  assert f'WARNING {tmp_path}/checkpoints/9: ' in capfd.readouterr().err


@pytest.mark.slow
def test_another_seed_is_another_run(finished, tmp_path):
  train.pretrain(tiny.config(seed=1), tmp_path)
  assert digests(tmp_path)['online'] != digests(finished[0])['online']


@pytest.mark.slow
def test_the_order_of_images_and_the_workers_do_not_change_the_tf_data_run(tmp_path):
  runs = []
  for name in 'ab':
    train.pretrain(tiny.config(data__pipeline='tf_data', train__epochs=1.0,
                               train__warmup_epochs=.5), tmp_path / name)
    runs.append(digests(tmp_path / name))
  assert runs[0] == runs[1]


@pytest.fixture
def unlabelled_file(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (40, 20, 24, 3), dtype=np.uint8)
  np.save(tmp_path / 'images.npy', images)
  return tmp_path / 'images.npy'


def array_options(images, **changes):
  return dict(images=str(images), labels=None, test_images=None, test_labels=None,
              validation_share=0., num_classes=0) | changes


def test_unlabelled_arrays_train_without_probe_and_knn(unlabelled_file, tmp_path):
  config = tiny.config().unlock()
  config.data.dataset = 'arrays'
  config.data.options = array_options(unlabelled_file, validation_share=.2)
  train.pretrain(config, tmp_path / 'run')
  records = metric_log.read(tmp_path / 'run')
  assert all('train/top1' not in r and 'knn/top1' not in r for r in records)
  ranks = [record['embeddings/rankme'] for record in records if 'embeddings/rankme' in record]
  assert len(ranks) == 3 and all(1 < rank <= 8 for rank in ranks)
  last = [record for record in records if 'train/loss' in record][-1]
  assert last['step'] == 32 * 3 // 16
  assert last['train/loss'] == last['train/byol_loss'] and 'collapse/std' in last


def test_without_held_out_images_the_evaluation_must_be_turned_off(unlabelled_file, tmp_path):
  config = tiny.config(train__stop_at_step=1).unlock()
  config.data.dataset, config.data.options = 'arrays', array_options(unlabelled_file)
  with pytest.raises(InputError, match='validation split is empty .* if evals.every_epochs is 0'):
    train.pretrain(config, tmp_path / 'run')
  config.evals.every_epochs = 0.
  assert train.pretrain(config, tmp_path / 'run').step == 1


def test_a_loss_that_is_not_finite_stops_with_step_and_last_good_checkpoint(
    tmp_path, monkeypatch):
  from byol_jax import schedules
  monkeypatch.setattr(schedules, 'learning_rate',
                      lambda step, **_: jnp.where(step >= 9, jnp.nan, .01))
  with pytest.raises(InputError) as error:
    train.pretrain(tiny.config(), tmp_path)
  # The tenth step makes the parameters NaN; the eleventh loss shows it.
  assert 'nan at step 11' in str(error.value)
  assert str(tmp_path / 'checkpoints' / '8') in str(error.value)
  assert checkpoint.steps(tmp_path)[-1] == 8
  assert checkpoint.restore_trees(tmp_path, checkpoint.TREES)[1]['step'] == 8


@pytest.mark.parametrize('change, parts', [
    (dict(train__batch_size=18), ['18', '4 devices', '16 or 20']),
    (dict(data__virtual_shards=5), ['16', '5 virtual shards', 'are 20']),
    (dict(train__warmup_epochs=3.0), ['train.warmup_epochs is 3.0', 'train.epochs 3.0']),
    (dict(train__epochs=1.2, train__warmup_epochs=1.1), ['warm-up', '4 steps', 'lower']),
    (dict(train__epochs=.1, train__warmup_epochs=0.), ['no step', 'train.epochs']),
    (dict(train__base_tau=1.5), ['train.base_tau', '1.5']),
    (dict(train__stop_at_step=-1), ['train.stop_at_step', '-1']),
    (dict(train__steps_per_dispatch=0), ['train.steps_per_dispatch', '0']),
    (dict(train__steps_per_dispatch=5, train__stop_at_step=7), ['stop_at_step is 7', '5 or 10']),
    (dict(view1__crop_area=(.5, 2.)), ['view1.crop_area']),
    (dict(view2__flip_probability=2.), ['view2.flip_probability']),
    (dict(model__predictor=(24, 8)), ['predictor', '8', '16']),
    (dict(seed=-1), ['seed', '-1']),
    (dict(data__dataset='arrays'), ['arrays', 'does not know', 'train_examples', 'misses',
                                    'validation_share']),
    (dict(model__encoder='os.path'), ['os.path', 'no function build']),
    (dict(evals__knn__k=65), ['evals.knn.k', '65', '64']),
    (dict(data__dataset='shape'),
     ['shape', 'arrays, image_folder, retrieval, shapes, stl10, tfds']),
    (dict(data__pipeline='grain'), ['grain', "'memory', 'device' or 'tf_data'"]),
    (dict(train__objective='moco'), ['moco', 'byol']),
])
def test_bad_configs_say_what_where_and_what_to_do(change, parts, tmp_path):
  with pytest.raises(InputError) as error:
    train.pretrain(tiny.config(**change), tmp_path)
  for part in parts:
    assert part in str(error.value)
  assert not (tmp_path / 'checkpoints').exists() or not checkpoint.steps(tmp_path)


def test_a_workdir_below_a_file_is_not_writable(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(InputError, match='not writable'):
    train.pretrain(tiny.config(), tmp_path / 'file' / 'run')


@pytest.mark.slow
def test_devices_do_not_change_the_result_beyond_rounding(finished, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[:1])
  one = train.pretrain(tiny.config(train__epochs=.75, train__warmup_epochs=.25), tmp_path / 'one')
  monkeypatch.undo()
  four = train.pretrain(tiny.config(train__epochs=.75, train__warmup_epochs=.25),
                        tmp_path / 'four')
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
               one.online_params, four.online_params)



SMALL = dict(image_size=8, count=2, crop_area=(.1, .3))


@pytest.mark.slow
@pytest.mark.parametrize('pipeline', ['memory', 'device', 'tf_data'])
def test_small_views_and_networks_without_statistics_train_resume_and_load(pipeline, tmp_path):
  def config(**changes):
    made = tiny.config(
        data__pipeline=pipeline, model__normalization='group', model__small_predictor=(20, 16),
        train__epochs=.5, train__warmup_epochs=0., evals__every_epochs=0., **changes).unlock()
    made.view_small.update(SMALL)
    return made.lock()

  assert train.pretrain(config(train__stop_at_step=1), tmp_path).step == 1
  state = train.pretrain(config(), tmp_path)
  assert state.step == 2 and not state.online_state
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), state.online_params, state.target_params)
  assert moved['predictor_small/linear']['w'] > 0
  images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
  assert np.isfinite(load_encoder(tmp_path)(images)).all()
