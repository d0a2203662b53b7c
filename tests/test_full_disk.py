"""A disk that fills up during a save: a clear error, earlier checkpoints load."""

import subprocess

import pytest

from byol_jax import checkpoint
from tests import commands

FLAGS = dict(config='tests/tiny.py', config__train__epochs=20.0, config__checkpoint__keep_last=99,
             config__evals__every_epochs=0.0)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 4 MiB, which holds a few of the checkpoints."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(folder)],
                           capture_output=True, text=True)
  if mounted.returncode:
    pytest.skip(f'no file system can be mounted here: {mounted.stderr.strip()}')
  yield folder
  subprocess.run(['umount', '--lazy', str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_one_clear_line(small_disk):
  result = commands.run('pretrain', workdir=small_disk / 'run', **FLAGS)
  assert result.returncode == 1
  errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
  assert len(errors) == 1 and 'o space left on device' in errors[0], result.stderr
  saved = checkpoint.steps(small_disk / 'run')
  assert saved and not any(checkpoint.verify(small_disk / 'run', step) for step in saved)
  # With space again, the same command goes on.
  subprocess.run(['mount', '-o', 'remount,size=64m', str(small_disk)], check=True)
  result = commands.run('pretrain', workdir=small_disk / 'run', **FLAGS)
  assert result.returncode == 0, result.stderr
  assert f'Resuming at step {saved[-1]} of 80' in result.stdout
