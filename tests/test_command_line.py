"""What all commands do alike: where they can be run from, flags, signals, a reader that is gone."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from tests import commands

HOME = commands.ROOT / 'experiments'
COMMANDS = sorted(path.stem for path in HOME.glob('*.py')
                  if "if __name__ == '__main__':\n  command_line.run(" in path.read_text())


def run(*arguments, folder=commands.ROOT, path=None, **environment):
  """Code, output and error of Python with these arguments; `path` is for PYTHONPATH."""
  own = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
  result = subprocess.run(
      [sys.executable, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
      env=own | environment | (dict(PYTHONPATH=str(path)) if path else {}), check=False)
  return result.returncode, result.stdout, result.stderr


def test_no_module_hides_one_of_python():
  for folder in (HOME, commands.ROOT / 'byol_jax'):
    # A folder without __init__.py comes after any module of the name.
    names = {path.stem for path in folder.iterdir()
             if path.suffix == '.py' or (path / '__init__.py').is_file()}
    assert len(names) > 10 and not names & (sys.stdlib_module_names - {'__init__'}), folder
  assert len(COMMANDS) >= 12


EMPTY = ('error: --results is empty: is a shell variable not set? Give a path, . for this '
         'folder.\n')


@pytest.mark.parametrize('arguments, folder', [
    (['experiments/table.py'], '.'), (['table.py'], 'experiments'),
    (['-m', 'table'], 'experiments'), (['-m', 'experiments.table'], 'experiments'),
    (['-m', 'experiments.table'], '.'),
    (['../experiments/table.py'], 'tests')])
def test_a_command_runs_by_its_path_and_from_its_folder(arguments, folder):
  assert run(*arguments, '--results=', folder=commands.ROOT / folder) == (1, '', EMPTY)


@pytest.mark.slow
@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_runs_by_its_path(name):
  code, output, error = run(f'{name}.py', '--helpshort', folder=HOME)
  # absl's code for help.
  assert code == 1 and f'python -m experiments.{name}' in output and error == ''


def test_inspect_is_a_command_that_hides_nothing():
  code, _, error = run('-m', 'experiments.inspect')
  assert (code, error) == (1, 'error: --checkpoint is missing. Workdir of a pretraining run.\n')
  code, _, error = run('experiments/inspect')
  assert (code, error) == (1, 'error: run this as python -m experiments.inspect, in the '
                           'folder of the clone.\n')


@pytest.mark.parametrize('flags, message', [
    (['--nosuch=1'], "error: Unknown command line flag 'nosuch'\n"),
    ([], 'error: --workdir is missing. Folder of the run: checkpoints, logs.\n'),
    (['--config.train.epochs=abc', '--workdir=w'],
     "error: --config.train.epochs is 'abc'; it can be a number above 0.\n"),
    (['--workdir=gs:/b'], 'error: --workdir is gs:/b; an object store is gs://BUCKET/..., with two '
     'slashes and the name of a bucket.\n')])
def test_wrong_flags_are_one_line(flags, message):
  assert run('-m', 'experiments.pretrain', '--config=experiments/configs/demo.py', *flags) == (
      1, '', message)


def test_devices_that_are_not_there_are_one_line(tmp_path):
  assert run('-m', 'experiments.inspect', f'--checkpoint={tmp_path}', JAX_PLATFORMS='cuda',
             CUDA_VISIBLE_DEVICES='') == (
      1, '', 'error: JAX_PLATFORMS is cuda, and JAX finds no cuda device here. '
      'CUDA_VISIBLE_DEVICES is empty, which hides every GPU: unset it. Install its part of JAX '
      '(pip install -e .[cuda12]), or unset JAX_PLATFORMS to take what there is.\n')


@pytest.mark.parametrize('name, value, said', [
    ('JAX_NUM_CPU_DEVICES', 'x', 'Invalid value "x" for JAX flag jax_num_cpu_devices'),
    ('JAX_ENABLE_X64', 'maybe', "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'")])
def test_variables_that_jax_does_not_take_are_one_line(name, value, said):
  assert run('-m', 'experiments.table', '--results=x', **{name: value}) == (
      1, '', f'error: JAX does not take {name}={value} ({said}). Correct or unset this environment '
      'variable.\n')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_one_line(tmp_path, number):
  os.mkfifo(tmp_path / 'results.json')
  # The file opens when the command reads it, which then waits until it is closed.
  with (subprocess.Popen(commands.arguments('table', results=tmp_path), cwd=commands.ROOT,
                         stderr=subprocess.PIPE, text=True) as process,
        open(tmp_path / 'results.json', 'wb')):
    process.send_signal(number)
    error = process.stderr.read()
  assert (process.returncode, error) == (
      128 + number, f'Stopped by {number.name}. Run the same command to start again.\n')


def test_a_reader_that_is_gone_ends_a_command_silently(tmp_path):
  (tmp_path / 'file').write_bytes(pickle.dumps({}))
  reader, writer = os.pipe()
  os.close(reader)
  result = subprocess.run(
      [*commands.arguments('convert', input=tmp_path / 'file'), 'from_deepmind', '--scan'],
      cwd=commands.ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
  os.close(writer)
  assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, '')


CODE = """
from absl import flags
from experiments import command_line

def main():
  options = flags.FLAGS.config.data.options
  print([options[key] for key in options if key in ('labels', 'images', 'fold')])

command_line.run(main, kind='pretraining', config='A config.')
"""


def parsed(config, *overrides):
  return subprocess.run(
      [sys.executable, '-c', CODE, f'--config=experiments/configs/{config}.py', *overrides],
      cwd=commands.ROOT, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize('config, overrides, printed', [
    ('arrays', ['--config.data.options.labels=x.npy', '--config.data.options.labels=None',
                '--config.data.options.images=none.npz'], "['none.npz', None]"),
    ('stl10', ['--config.data.options.fold', 'None'], '[None]'),
    ('stl10', ['--config.data.options.fold=3'], '[3]')])
def test_none_is_the_value_and_not_its_name(config, overrides, printed):
  done = parsed(config, *overrides)
  assert (done.returncode, done.stdout.strip()) == (0, printed), done.stderr


def test_a_key_that_needs_a_value_cannot_be_none():
  done = parsed('arrays', '--config.data.dataset=None')
  assert done.returncode == 1
  assert done.stderr == ('error: data.dataset cannot be None (--config.data.dataset); without the '
                         'flag it has the value from experiments/configs/arrays.py.\n')
