"""A sweep of real runs: one fails, one is killed, and the same command finishes the rest."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess

import pytest

from tests import commands

CONFIG = 'tests/tiny_sweep.py'


def rows(workdir):
  result = commands.run('sweep', config=CONFIG, workdir=workdir, status='true')
  assert result.returncode == 0, result.stderr
  return json.loads((workdir / 'tiny_sweep.json').read_text())


def pretraining_of(folder):
  """The process that pretrains in a folder, None while there is none."""
  for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):
    with contextlib.suppress(OSError):
      words = path.read_bytes().split(b'\0')
      if f'--workdir={folder}'.encode() in words and b'experiments.pretrain' in words:
        return int(path.parent.name)
  return None


@pytest.mark.long
def test_a_sweep_goes_on_with_exactly_what_is_not_done(tmp_path):
  workdir, printed = tmp_path / 'sweep', tmp_path / 'printed'
  points = rows(workdir)
  assert [row['state'] for row in points] == ['waiting'] * 6
  victim = pathlib.Path(points[1]['folder'])
  with commands.start('sweep', config=CONFIG, workdir=workdir) as process:
    while not (victim / 'checkpoints').is_dir():
      assert process.poll() is None
    os.kill(pretraining_of(victim), signal.SIGKILL)
    output = process.stdout.read()
  assert process.returncode == 1 and 'error: 2 of 6 points failed' in output
  assert f'{victim.name}: pretrain failed with code -9' in output and 'nan' in output
  assert [row['state'] for row in rows(workdir)] == [
      'done', 'failed', 'done', 'done', 'done', 'failed']

  logs = {row['point']: (pathlib.Path(row['folder']) / 'log.txt').read_text() for row in points}
  again = commands.run('sweep', config=CONFIG, workdir=workdir)
  assert again.returncode == 1 and 'error: 1 of 6 points failed' in again.stderr
  table = workdir / 'tiny_sweep'
  assert f'Table: {table}.csv, {table}.json\n' in again.stdout
  finished = rows(workdir)
  assert [row['state'] for row in finished] == ['done'] * 5 + ['failed']
  for row in finished[:5]:
    unchanged = (pathlib.Path(row['folder']) / 'log.txt').read_text() == logs[row['point']]
    assert unchanged == (row['point'] != victim.name)
    assert row['step'] == 80 and 0 <= row['pretrained/knn/top1'] <= 1

  left, = commands.run('sweep', config=CONFIG, workdir=workdir, print='true').stdout.splitlines()
  assert f'/points/{finished[5]["point"]} ' in left
  script = commands.run('sweep', config=CONFIG, workdir=workdir, slurm=workdir / 'sweep.sh')
  assert script.stdout == f'1 of 6 points left: sbatch {workdir}/sweep.sh\n'
  assert left in (workdir / 'sweep.sh').read_text()

  lines = commands.run('sweep', config=CONFIG, workdir=printed, print='true').stdout.splitlines()
  assert len(lines) == 6
  for line in lines[:2]:
    subprocess.run(['bash', '-c', line], check=True, cwd=commands.ROOT, capture_output=True)
  for row in points[:2]:
    assert commands.digests(row['folder']) == commands.digests(printed / 'points' / row['point'])
