"""Jobs of several real processes: they agree with one process, and survive."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from byol_jax import checkpoint, tensors
from byol_jax.distributed import preemption
from byol_jax.distributed.processes import EXIT_CODE as LOST_ONE
from tests import commands

FLOAT64 = dict(environment={'JAX_ENABLE_X64': '1'}, config__model__compute_dtype='float64',
               config__train__epochs=5.0)
# A device for each process: the runs are about starts and ends, not about speed.
LONG = dict(devices=2, config='tests/tiny.py', config__train__epochs=60.0,
            config__log__every_steps=10, config__checkpoint__every_epochs=2.5,
            config__evals__every_epochs=0.0)
KILLS = 10


@pytest.fixture(scope='module')
def records(tmp_path_factory):
  """A TFDS set of 64 JPEG files in TFRecords."""
  from tests.datasets.test_tfds import features, write_set
  from tests.input_pipeline.test_tf_pipeline import encode, noise
  folder = tmp_path_factory.mktemp('records')
  write_set(folder, [dict(image=encode(noise(20, 24, 3, seed=i), 'JPEG'), label=i % 3)
                     for i in range(72)], dict(train=(20, 16, 24, 12)), features('jpeg', 3))
  return folder


@pytest.fixture(params=['memory', 'records'])
def data(request):
  """Flags of the data: images in memory, or JPEG files in TFRecords."""
  if request.param == 'memory':
    return dict(config='tests/tiny.py')
  return dict(config='tests/tiny.py:records',
              config__data__options__data_dir=request.getfixturevalue('records'))


def pretrain(processes, workdir, **flags):
  code, output = commands.run_job(processes, 'pretrain', workdir=workdir, **flags)
  assert code == 0, output
  trees, meta = checkpoint.restore_trees(workdir, checkpoint.TREES)
  return tensors.flat(trees), meta


def assert_close(actual, expected, **tolerance):
  assert actual.keys() == expected.keys()
  for path, array in expected.items():
    np.testing.assert_allclose(actual[path], array, err_msg=path, **tolerance)


@pytest.mark.slow
def test_two_and_four_processes_agree_with_one_in_float64(tmp_path, data):
  expected, meta = pretrain(1, tmp_path / '1', **data, **FLOAT64)
  assert meta['step'] >= 20
  for processes in (2, 4):
    actual, meta = pretrain(processes, tmp_path / str(processes), **data, **FLOAT64)
    assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_other_numbers_of_processes_and_devices(tmp_path):
  options = dict(config='tests/tiny.py', **FLOAT64)
  expected, _ = pretrain(1, tmp_path / 'whole', **options)
  # (processes, devices over all of them), one after the other in one workdir.
  for stop, (processes, devices) in ((6, (4, 4)), (11, (1, 8)), (16, (2, 2)), (0, (1, 1))):
    actual, meta = pretrain(processes, tmp_path / 'moved', devices=devices, **options,
                            config__train__stop_at_step=stop)
    assert meta['step'] == (stop or 20)
  assert_close(actual, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_two_processes_agree_with_one_after_three_steps_in_float32(tmp_path):
  runs = [pretrain(processes, tmp_path / str(processes), config='tests/tiny.py',
                   config__train__stop_at_step=3, config__train__base_learning_rate=.3)[0]
          for processes in (1, 2)]
  assert_close(runs[1], runs[0], rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_an_evaluation_by_two_processes_counts_each_image_once(tmp_path):
  pretrain(1, tmp_path / 'run', config='tests/tiny.py', config__train__stop_at_step=4)
  results = []
  for processes in (1, 2):
    workdir = tmp_path / f'evaluation{processes}'
    # No batch divides 64, 20 and 30 images.
    code, output = commands.run_job(
        processes, 'evaluate', config='tests/tiny.py:eval', checkpoint=tmp_path / 'run',
        workdir=workdir, config__batch_size=12)
    assert code == 0, output
    assert output.count('| BYOL, frozen |') == 1
    results.append(json.loads((workdir / 'results.json').read_text()))
    reads = (workdir / 'splits_read.jsonl').read_text().splitlines()
    assert [json.loads(line)['split'] for line in reads] == ['train', 'validation', 'test']
  assert results[0]['images'] == results[1]['images'] == dict(train=64, validation=20, test=30)
  for encoder in ('pretrained', 'random', 'pixels'):
    for evaluator in ('knn', 'linear_features'):
      one, two = (result['encoders'][encoder][evaluator]['top1'] for result in results)
      # Rounding may turn over a single image.
      assert abs(one - two) <= 1 / 30 + 1e-9, (encoder, evaluator)


@pytest.mark.slow
def test_a_fine_tuning_by_two_processes_goes_on_with_the_grid_of_one(tmp_path):
  pretrain(1, tmp_path / 'run', config='tests/tiny.py', config__train__stop_at_step=4)
  grids = []
  for processes, workdir in ((1, 'one'), (2, 'two'), (2, 'one')):
    code, output = commands.run_job(
        processes, 'evaluate', config='tests/tiny.py:tuning', checkpoint=tmp_path / 'run',
        workdir=tmp_path / workdir)
    assert code == 0, output
    path = tmp_path / workdir / 'grids' / 'pretrained' / 'fine_tuned_transfer.jsonl'
    grids.append([json.loads(line) for line in path.read_text().splitlines()])
  assert '2 already finished in' in output and grids[2] == grids[0]
  for one, two in zip(*grids[:2], strict=True):
    assert one['key'] == two['key']
    # Rounding may turn over a single image.
    assert abs(one['validation']['top1'] - two['validation']['top1']) <= 1 / 20 + 1e-9


def processes_of(workdir):
  """Ids of the workers of a job, found by their workdir."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    with contextlib.suppress(OSError):
      words = path.read_bytes().split(b'\0')
      if f'--workdir={workdir}'.encode() in words and any(
          word.startswith(b'--process_id=') for word in words):
        found.append(int(path.parent.name))
  return sorted(found)


def wait_for_progress(process, lines):
  """Reads output until so many lines of progress, or its end."""
  for line in process.stdout:
    if 'images/s' in line or 'ing at step' in line:
      lines -= 1
    if lines < 0:
      return


@pytest.mark.long
def test_kill_9_of_one_of_two_processes_at_ten_moments(tmp_path):
  code, output = commands.run_job(2, 'pretrain', workdir=tmp_path / 'whole', **LONG)
  assert code == 0, output
  randomness, kills, workdir = random.Random(0), 0, tmp_path / 'killed'
  with commands.start_job(2, 'pretrain', workdir=workdir, restarts=KILLS, **LONG) as job:
    while kills < KILLS:
      wait_for_progress(job, randomness.randrange(3))
      with contextlib.suppress(subprocess.TimeoutExpired):
        job.wait(timeout=randomness.uniform(0., .5))
      workers = processes_of(workdir)
      assert job.poll() is None and len(workers) == 2, (kills, workers)
      os.kill(randomness.choice(workers), signal.SIGKILL)
      kills += 1
    output = job.stdout.read()
  assert job.returncode == 0, output
  assert commands.digests(workdir) == commands.digests(tmp_path / 'whole')


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_and_loses_nothing(tmp_path):
  code, output = commands.run_job(2, 'pretrain', workdir=tmp_path / 'whole', **LONG)
  assert code == 0, output
  workdir, randomness = tmp_path / 'stopped', random.Random(1)
  for number in preemption.SIGNALS:
    with commands.start_job(2, 'pretrain', workdir=workdir, **LONG) as job:
      wait_for_progress(job, 1 + randomness.randrange(2))
      workers = processes_of(workdir)
      assert len(workers) == 2, job.stdout.read()
      os.kill(randomness.choice(workers), number)
      began, output = time.monotonic(), job.stdout.read()
    assert job.returncode == preemption.EXIT_CODE, output
    assert time.monotonic() - began < 60
    for by in (number.name, 'a signal to another process'):
      assert output.count(f'Stopped by {by} after step') == 1, output
  code, output = commands.run_job(2, 'pretrain', workdir=workdir, **LONG)
  assert code == 0, output
  assert commands.digests(workdir) == commands.digests(tmp_path / 'whole')


@pytest.mark.slow
def test_the_process_that_is_left_says_so_with_its_code(tmp_path):
  job = commands.start_alone(2, 'pretrain', workdir=tmp_path, **LONG)
  wait_for_progress(job[0], 1)
  job[1].kill()
  began, output = time.monotonic(), job[0].stdout.read()
  assert job[0].wait() == LOST_ONE, output
  assert 'error: another process of the job is gone' in output
  assert time.monotonic() - began < 90


@pytest.mark.slow
@pytest.mark.parametrize('differing, message', [
    (dict(config__train__base_learning_rate=.1), 'train.base_learning_rate: 1.0 -> 0.1'),
    (dict(config__checkpoint__every_epochs=3.0), 'resolved.checkpoint_every: 10 -> 12'),
    (dict(workdir='other'), 'is not shared: process 1 cannot see what process 0 writes there')])
def test_processes_that_were_given_different_runs_are_refused(tmp_path, differing, message):
  if 'workdir' in differing:
    differing = dict(workdir=tmp_path / 'other')
  flags = dict(LONG, workdir=tmp_path / 'run')
  for process in commands.start_alone(2, 'pretrain', each=[{}, differing], **flags):
    output = process.stdout.read()
    assert process.wait() == 1 and message in output, output


@pytest.mark.slow
def test_a_changed_file_stops_all_processes_wherever_each_has_the_data(records, tmp_path):
  copies = [shutil.copytree(records, tmp_path / f'copy{i}') for i in range(2)]
  def job(*folders):
    started = commands.start_alone(
        2, 'pretrain', each=[dict(config__data__options__data_dir=folder) for folder in folders],
        **dict(LONG, config='tests/tiny.py:records', workdir=tmp_path / 'run',
               config__train__stop_at_step=1))
    return [(process.stdout.read(), process.wait()) for process in started]
  for output, code in job(*copies) + job(*copies[::-1]):
    assert code == 0, output
  path, *_ = sorted(copies[0].rglob('*.tfrecord-*'))
  path.write_bytes(path.read_bytes() * 2)
  for output, code in job(*copies):
    assert code == 1 and f': 1 changed (tiny/1.0.0/{path.name}). ' in output, output


@pytest.mark.slow
def test_sigterm_ends_an_evaluation(tmp_path):
  pretrain(1, tmp_path / 'run', config='tests/tiny.py', config__train__stop_at_step=4)
  with commands.start_job(2, 'evaluate', config='tests/tiny.py:eval', checkpoint=tmp_path / 'run',
                          workdir=tmp_path / 'evaluation') as job:
    assert any(line.startswith('preparing') for line in job.stdout)
    os.kill(processes_of(tmp_path / 'evaluation')[0], signal.SIGTERM)
    began, output = time.monotonic(), job.stdout.read()
  assert job.returncode not in (0, None) and time.monotonic() - began < 60, output


@pytest.mark.slow
def test_a_failing_process_takes_the_job_down_with_its_reason(tmp_path):
  began = time.monotonic()
  code, output = commands.run_job(2, 'pretrain', workdir=tmp_path, config='tests/tiny.py',
                                  config__train__base_learning_rate=1e30)
  assert code == 1 and 'error: The loss is nan at step' in output
  assert time.monotonic() - began < 180
