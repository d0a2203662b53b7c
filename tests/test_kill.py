"""A run that is killed again and again ends with the digests of one that never stopped."""

import contextlib
import random
import re
import signal
import subprocess

import pytest

from tests import commands

FLAGS = dict(config='tests/tiny.py', config__train__epochs=100.0, config__log__every_steps=10,
             config__checkpoint__every_epochs=2.5, config__evals__every_epochs=20.0)
KILLS = 10


def being_saved(workdir):
  """The folders of saves that have not been committed."""
  folder = workdir / 'checkpoints'
  return [p for p in folder.iterdir() if not p.name.isdigit()] if folder.is_dir() else []


def kill_during_a_save(process, workdir):
  while not being_saved(workdir) and process.poll() is None:
    pass
  process.kill()
  process.wait()
  return bool(being_saved(workdir))


def kill_at_a_random_moment(process, randomness):
  """After a random number of progress lines, and a random part of the next interval."""
  lines = randomness.randrange(4)
  for line in process.stdout:
    if 'images/s' in line or 'Starting' in line or 'Resuming' in line:
      lines -= 1
    if lines < 0:
      break
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(timeout=randomness.uniform(0., .5))
  running = process.poll() is None
  process.kill()
  process.wait()
  return running


@pytest.mark.slow
def test_kill_9_at_ten_moments_one_of_them_during_a_save(tmp_path):
  uninterrupted, killed = tmp_path / 'uninterrupted', tmp_path / 'killed'
  result = commands.run('pretrain', workdir=uninterrupted, **FLAGS)
  assert result.returncode == 0, result.stderr

  randomness = random.Random(0)
  kills, saves_hit = 0, 0
  while kills < KILLS:
    with commands.start('pretrain', workdir=killed, **FLAGS) as process:
      if not saves_hit:
        hit = kill_during_a_save(process, killed)
        saves_hit += hit
      else:
        hit = kill_at_a_random_moment(process, randomness)
      # A run that had already ended was not killed: the last kills come too late only
      # if it is finished.
      if process.returncode == 0:
        break
      kills += hit
  assert saves_hit == 1 and kills == KILLS, (saves_hit, kills)
  result = commands.run('pretrain', workdir=killed, **FLAGS)
  assert result.returncode == 0, result.stderr
  assert commands.digests(killed) == commands.digests(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
def test_other_optimizers_resume_exactly_after_a_kill(tmp_path, optimizer):
  flags = FLAGS | dict(config=f'tests/tiny.py:{optimizer}', config__train__epochs=40.0)
  uninterrupted, killed = tmp_path / 'uninterrupted', tmp_path / 'killed'
  assert commands.run('pretrain', workdir=uninterrupted, **flags).returncode == 0
  with commands.start('pretrain', workdir=killed, **flags) as process:
    for line in process.stdout:
      if line.startswith('step 80/'):
        break
    process.kill()
  result = commands.run('pretrain', workdir=killed, **flags)
  assert result.returncode == 0 and 'Resuming at step ' in result.stdout, result.stderr
  assert commands.digests(killed) == commands.digests(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_terminal_that_closes_save_the_run(tmp_path, number):
  with commands.start('pretrain', workdir=tmp_path, **FLAGS) as process:
    for line in process.stdout:
      if 'images/s' in line:
        break
    process.send_signal(number)
    last = process.stdout.read().splitlines()[-1]
  step, = re.findall(rf'^Stopped by {number.name} after step (\d+) of 400; a checkpoint is saved'
                     r'\. Run the same command to resume from it\.$', last)
  assert process.returncode == 75 and (tmp_path / 'checkpoints' / step).is_dir()
