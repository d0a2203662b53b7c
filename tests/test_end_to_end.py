"""The commands of the README as real processes, on a tiny run."""

import json
import shutil

import pytest

from tests import commands

CONFIG = 'tests/tiny.py'


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  return workdir, commands.run('pretrain', config=CONFIG, workdir=workdir,
                               config__train__batch_size=32)


def test_pretrain_prints_the_resolved_config_and_a_line_per_interval(pretrained):
  _, result = pretrained
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert 'max_steps: 6' in lines and 'devices: 4' in lines
  assert 'config.train.batch_size: 32' in lines
  assert any(line.startswith('parameters: ') for line in lines)
  progress = [line for line in lines if line.startswith('step ') and 'images/s' in line]
  assert len(progress) == 2
  for part in ('step 3/6', 'epoch 1.50', 'loss', 'probe top-1', 'data wait', 'ETA'):
    assert part in progress[0]
  assert not result.stderr


def test_inspect_prints_step_counts_and_a_digest_per_tree(pretrained):
  result = commands.run('inspect', checkpoint=pretrained[0])
  assert result.returncode == 0, result.stderr
  assert 'step: 6' in result.stdout.splitlines()
  assert 'parameters: encoder' in result.stdout
  digests = [line.split() for line in result.stdout.splitlines() if line.startswith('sha256')]
  assert [words[1] for words in digests] == ['online:', 'target:', 'state:', 'optimizer:']
  assert all(len(words[2]) == 64 for words in digests)


def test_inspect_tells_sound_checkpoints_from_damaged_ones(pretrained, tmp_path):
  workdir = tmp_path / 'copy'
  shutil.copytree(pretrained[0] / 'checkpoints', workdir / 'checkpoints')
  assert 'step 6: valid' in commands.run('inspect', checkpoint=workdir, verify='true').stdout
  for path in (workdir / 'checkpoints' / '6' / 'target').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:-1])
  result = commands.run('inspect', checkpoint=workdir, verify='true')
  assert result.returncode == 1 and 'checkpoints are damaged' in result.stderr
  assert f'step 6: {workdir}/checkpoints/6: target is damaged' in result.stdout


def test_evaluate_and_table_print_the_rows(pretrained, tmp_path):
  result = commands.run('evaluate', config=f'{CONFIG}:eval', checkpoint=pretrained[0],
                        workdir=tmp_path)
  assert result.returncode == 0, result.stderr
  for row in ('BYOL, frozen', 'random encoder', 'raw pixels', 'supervised'):
    assert f'| {row} |' in result.stdout
  assert json.loads((tmp_path / 'results.json').read_text())['step'] == 6
  table = commands.run('table', results=tmp_path)
  assert table.returncode == 0 and '| BYOL, frozen |' in table.stdout
  twice = commands.run('table', results=f'{tmp_path},{tmp_path}')
  assert twice.returncode == 1 and 'give each evaluation once.' in twice.stderr


def test_a_second_run_with_the_same_flags_is_the_same_run(pretrained, tmp_path):
  again = commands.run('pretrain', config=CONFIG, workdir=tmp_path, config__train__batch_size=32)
  assert again.returncode == 0, again.stderr
  assert commands.digests(tmp_path) == commands.digests(pretrained[0])


@pytest.mark.parametrize('command, flags, parts', [
    ('pretrain', dict(config=CONFIG, config__train__batchsize=4),
     ["'train.batchsize'", "'train.batch_size'"]),
    ('pretrain', dict(config=CONFIG, config__base_tau=.9), ["'base_tau'", "'train.base_tau'"]),
    ('pretrain', dict(config='no/such.py'), ['no/such.py']),
    ('pretrain', dict(config='experiments/configs/cifar10.py:size=tpu'),
     ["size is 'tpu'; it can be gpu or cpu"]),
    ('pretrain', dict(config='experiments/configs/demo.py:fast'),
     ["demo.py takes no argument, but 'fast' is given"]),
    ('pretrain', dict(config='README.md'), ['README.md is not a Python file (--config)']),
    ('pretrain', dict(config=CONFIG, config__train__batch_size=30), ['30', '28 or 32']),
    ('evaluate', dict(config=f'{CONFIG}:eval', checkpoint='/no/run'), ['No checkpoint in']),
])
def test_bad_input_ends_with_one_line_and_an_exit_code(command, flags, parts, tmp_path):
  result = commands.run(command, workdir=tmp_path / 'run', **flags)
  assert result.returncode == 1
  assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
  assert 'Traceback' not in result.stdout + result.stderr
  for part in parts:
    assert part in result.stderr
