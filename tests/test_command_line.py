"""The flags of the commands, parsed by a process that prints its config."""

import subprocess
import sys

import pytest

from tests import commands

CODE = """
from absl import flags
from experiments import command_line

def main():
  options = flags.FLAGS.config.data.options
  print([options[key] for key in options if key in ('labels', 'images', 'fold')])

command_line.run(main, config='A config.')
"""


def run(config, *overrides):
  return subprocess.run(
      [sys.executable, '-c', CODE, f'--config=experiments/configs/{config}.py', *overrides],
      cwd=commands.ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize('config, overrides, printed', [
    ('arrays', ['--config.data.options.labels=x.npy', '--config.data.options.labels=None',
                '--config.data.options.images=none.npz'], "['none.npz', None]"),
    ('stl10', ['--config.data.options.fold', 'None'], '[None]'),
    ('stl10', ['--config.data.options.fold=3'], '[3]')])
def test_none_is_the_value_and_not_its_name(config, overrides, printed):
  done = run(config, *overrides)
  assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


def test_a_key_that_needs_a_value_cannot_be_none():
  done = run('arrays', '--config.data.dataset=None')
  assert done.returncode == 1
  assert done.stderr == ('error: data.dataset cannot be None (--config.data.dataset); without the '
                         'flag it is what experiments/configs/arrays.py says.\n')
