"""The launchers: what can be checked of them on one machine."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from byol_jax.distributed import preemption

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
  code, output = outcome(
      # In one piece: the lines of several processes go into one pipe.
      'import os, sys; os.write(1, (" ".join(sorted(sys.argv[1:])) + "\\n").encode())',
      '--processes=3')
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


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_a_signal_is_passed_on_once_and_nothing_is_started_again(number):
  # Each process is in a group of its own, which the signals of a terminal do not reach.
  code = ('import os, signal, sys\nassert os.getpgid(0) == os.getpid()\n'
          f'signal.signal({int(number)}, lambda *_: sys.exit(75))\n'
          'sys.stdout.write("ready\\n")\nsignal.pause()')
  with launch(code, '--processes=2', '--restarts=5') as process:
    ready = [process.stdout.readline() for _ in range(2)]
    process.send_signal(number)
    output = process.stdout.read()
  assert ready == ['ready\n'] * 2 and process.returncode == 75 and 'ready' not in output


def test_a_command_that_is_none_is_one_line():
  for command in ([], ['--', 'no-such-command']):
    result = subprocess.run([sys.executable, '-m', 'experiments.launch.local_processes', *command],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and result.stderr == (
        f'error: {command[1] if command else "nothing"} is not a command; give one after --, as in '
        'the first lines of experiments/launch/local_processes.py.\n')


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """Puts a shell script of a name before all commands of that name."""
  folder = tmp_path / 'stand_ins'
  folder.mkdir()
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')

  def put(name, script):
    (folder / name).write_text(f'#!/bin/bash\n{script}\n')
    (folder / name).chmod(0o755)

  return put


def script(name, tmp_path, *arguments, **variables):
  """Starts a launch script in a folder of its own."""
  home = tmp_path / 'home'
  home.mkdir(exist_ok=True)
  return subprocess.Popen(
      ['bash', LAUNCH / name, *arguments], cwd=home, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, text=True, env={**os.environ, 'HOME': str(home), **variables})


@pytest.fixture
def slurm(stand_in, tmp_path):
  """Runs slurm.sh with two tasks that end with the given codes: its code and output."""
  # srun's own flags end where the command begins; its code is the highest of the tasks'.
  stand_in('srun', """while [[ $1 == -* ]]; do shift; done
      for rank in 0 1; do SLURM_PROCID=$rank "$@"; codes+=" $?"; done
      printf '%s\\n' $codes | sort -n | tail -1 | { read -r code; exit "$code"; }""")
  stand_in('scontrol', 'echo "$@"')

  def run(*codes, restarts=0):
    stand_in('python', f'codes=({" ".join(map(str, codes))}); exit "${{codes[$SLURM_PROCID]}}"')
    with script('slurm.sh', tmp_path, '--workdir=a b', SLURM_JOB_ID='5', SLURM_CPUS_PER_TASK='2',
                SLURM_RESTART_COUNT=str(restarts)) as process:
      output = process.stdout.read()
    return process.returncode, output

  return run


@pytest.mark.parametrize('codes, code, queued', [
    ((0, 0), 0, False), ((75, 75), 75, True), ((137, 76), 137, True),
    ((1, 76), 1, False), ((134, 1), 1, False)])
def test_slurm_queues_a_job_again_unless_a_task_has_failed(slurm, codes, code, queued):
  assert slurm(*codes) == (code, 'requeue 5\n' if queued else '' if code != 1 else
                           f'tasks that failed with code 1: {codes.index(1)} \n')


def test_slurm_gives_up_after_fifty_restarts(slurm):
  assert slurm(75, 75, restarts=50) == (75, '')


def test_a_task_of_slurm_lives_through_sigterm_and_keeps_its_code(slurm, stand_in, tmp_path):
  stand_in('srun', 'while [[ $1 == -* ]]; do shift; done; SLURM_PROCID=0 exec "$@"')
  stand_in('scontrol', '')
  stand_in('python', f"""exec {sys.executable} -c '
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
signal.pause()'""")
  process = subprocess.Popen(['bash', LAUNCH / 'slurm.sh'], cwd=tmp_path, stdout=subprocess.PIPE,
                             text=True, start_new_session=True,
                             env={**os.environ, 'SLURM_JOB_ID': '5', 'SLURM_CPUS_PER_TASK': '2'})
  with process:
    assert process.stdout.readline() == 'ready\n'
    # As Slurm does: all processes of the step, but not the script itself.
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
      number, session = int(path.parent.name), int(path.read_text().rsplit(')')[-1].split()[3])
      if session == process.pid and number != process.pid:
        os.kill(number, signal.SIGTERM)
  assert process.returncode == 75


@pytest.fixture
def tpu(stand_in, tmp_path):
  """Runs tpu_vm.sh on a slice of one worker, which is a folder here; the run ends with codes."""
  worker = tmp_path / 'worker'
  worker.mkdir()
  stand_in('gcloud', f"""case "$4" in describe) echo READY;; ssh)
      for word in "$@"; do [[ $word == --command=* ]] && command=${{word#--command=}}; done
      cd {worker} && HOME={worker} bash -c "$command";; esac""")
  stand_in('git', 'mkdir -p byol_jax/.venv/bin; cp "$(command -v python-of-run)" '
           'byol_jax/.venv/bin/python')
  for name, does in dict(python3='', sleep='', pkill='', pgrep='exit 1').items():
    stand_in(name, does)

  def run(*codes):
    stand_in('python-of-run', f"""echo "$@" >> ../starts
        codes=({" ".join(map(str, codes))}); exit "${{codes[$(($(wc -l < ../starts) - 1))]}}" """)
    with script('tpu_vm.sh', tmp_path, '--workdir=gs://b/a b', NAME='n', ZONE='z', TYPE='t',
                REPOSITORY='r', RESTARTS='2') as process:
      output = process.stdout.read()
    return process.returncode, (worker / 'starts').read_text().splitlines(), output

  return run


@pytest.mark.parametrize('codes, code, starts', [
    ((0,), 0, 1), ((75, 76, 0), 0, 3), ((75, 1), 1, 2), ((75, 75, 75), 1, 3)])
def test_a_slice_is_started_again_unless_a_worker_has_failed(tpu, codes, code, starts):
  ended, commands, output = tpu(*codes)
  assert (ended, len(commands)) == (code, starts), output
  assert set(commands) == {'-m experiments.pretrain --multihost --workdir=gs://b/a b'}


@pytest.mark.parametrize('name', ['slurm.sh', 'tpu_vm.sh', 'gke.yaml'])
def test_the_scripts_start_a_job_on_a_config_that_exists(name):
  text = (LAUNCH / name).read_text()
  assert 'experiments.pretrain' in text and '--multihost' in text
  assert 'experiments/configs/imagenet_r50.py:epochs=1000' in text
