"""The launchers: what can be checked of them on one machine."""

import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'experiments' / 'launch'


def launch(code, *flags):
  """Starts `code` as the command of a job; it finds its flags in sys.argv."""
  return subprocess.Popen(
      [sys.executable, '-m', 'experiments.launch.local_processes', *flags, '--', sys.executable,
       '-u', '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(*arguments):
  with launch(*arguments) as process:
    output = process.stdout.read()
  return process.returncode, output


def test_every_process_gets_its_place_in_the_job():
  code, output = outcome('import sys; print(*sorted(sys.argv[1:]))', '--processes=3')
  lines = sorted(line.split() for line in output.splitlines())
  assert code == 0 and len({line[0] for line in lines}) == 1
  assert lines[0][0].startswith('--coordinator_address=127.0.0.1:')
  assert [line[1:] for line in lines] == [['--num_processes=3', f'--process_id={i}']
                                          for i in range(3)]


def test_one_that_fails_ends_the_others_with_its_code():
  code, output = outcome(
      'import sys, signal\nif sys.argv[-1].endswith("1"): sys.exit(7)\nsignal.pause()',
      '--grace=0.1')
  assert code == 7 and 'The job ended with code 7.' in output


def test_a_job_is_started_again_until_it_succeeds(tmp_path):
  # Each start adds a file; with the third the job succeeds.
  code = (f'import pathlib, sys, tempfile\nfolder = pathlib.Path({str(tmp_path)!r})\n'
          'tempfile.mkstemp(dir=folder)\nsys.exit(75 * (len(list(folder.iterdir())) < 3))')
  assert outcome(code, '--processes=1', '--restarts=5')[0] == 0
  assert len(list(tmp_path.iterdir())) == 3
  code, output = outcome('raise SystemExit(75)', '--processes=1', '--restarts=1')
  assert code == 75 and output.count('(preempted)') == 2


def test_sigterm_is_passed_on_and_nothing_is_started_again():
  code = ('import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n'
          'print("ready")\nsignal.pause()')
  with launch(code, '--processes=2', '--restarts=5') as process:
    ready = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
  assert ready == ['ready\n'] * 2 and process.returncode == 75 and 'ready' not in output


@pytest.mark.parametrize('name', ['slurm.sh', 'tpu_vm.sh'])
def test_the_scripts_are_bash(name):
  subprocess.run(['bash', '-n', LAUNCH / name], check=True)


@pytest.mark.parametrize('name', ['slurm.sh', 'tpu_vm.sh', 'gke.yaml'])
def test_the_scripts_start_a_job_on_a_config_that_exists(name):
  text = (LAUNCH / name).read_text()
  assert 'experiments.pretrain' in text and '--multihost' in text and '75' in text
  assert 'experiments/configs/imagenet_r50.py:epochs=1000' in text
