"""Sweeps: points, states, failures and restarts, with small commands as stages."""

import concurrent.futures
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from byol_jax.distributed import preemption
from byol_jax.errors import InputError
from byol_jax.sweep import points as sweep
from byol_jax.sweep import runner, table
from tests import tiny

SEEDS = range(3)


def get_hyper(hyper):
  return hyper.sweep('config.seed', SEEDS)


def points(workdir, get_hyper=get_hyper, **overrides):
  overrides = {key.replace('__', '.'): value for key, value in overrides.items()}
  return sweep.points(tiny.config, get_hyper, config_path='tests/tiny.py', overrides=overrides,
                      workdir=workdir)


def with_code(point, *codes):
  """The point with Python code instead of its commands; `result` is the stage's file."""
  stages = []
  for i, code in enumerate(codes):
    result = point.folder / f'result{i}'
    script = point.folder.parent / f'{point.digest}_{i}.py'
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f'import pathlib, os, sys\nresult = pathlib.Path({str(result)!r})\n{code}\n')
    stages.append(sweep.Stage(f'stage{i}', (str(script),), result))
  return point._replace(stages=tuple(stages))


@pytest.fixture
def three(tmp_path):
  return points(tmp_path)


def run(found, slots=({},)):
  return runner.run(found, slots=slots, progress=lambda: None)


WORKS = 'print("at work"); result.write_text("1")'
FAILS = 'print("before"); sys.exit("no such luck")'


def test_a_point_is_the_config_with_its_overrides(three, tmp_path):
  assert [point.overrides for point in three] == [{'seed': seed} for seed in SEEDS]
  assert len({point.digest for point in three}) == 3
  pretrain, evaluation = three[1].stages
  assert pretrain.arguments == (
      '-m', 'experiments.pretrain', '--config=tests/tiny.py', '--config.seed=1',
      f'--workdir={tmp_path}/points/{three[1].digest}')
  assert evaluation.name == 'linear_features' and '--config.seed=1' in evaluation.arguments


def test_sweeps_share_the_points_that_they_have_in_common(three, tmp_path):
  other = points(tmp_path, lambda hyper: hyper.product([
      hyper.sweep('config.seed', [2, 3]), hyper.sweep('config.train.base_tau', [.996, .9])]))
  assert {p.digest for p in other} & {p.digest for p in three} == {three[2].digest}


def test_logging_does_not_make_another_point_and_training_does(three, tmp_path):
  digests = [point.digest for point in three]
  assert [p.digest for p in points(tmp_path, **{'log.every_steps': 7})] == digests
  assert not {p.digest for p in points(tmp_path, **{'train.epochs': 7.})} & set(digests)


def test_a_point_that_occurs_twice_is_run_once(tmp_path):
  assert len(points(tmp_path, lambda hyper: hyper.chainit([get_hyper(hyper)] * 2))) == 3


@pytest.mark.parametrize('make, message', [
    (lambda hyper: hyper.sweep('config.train.base_taus', [1.]),
     r'config.train.base_taus .* nearest key is config.train.base_tau\.'),
    (lambda hyper: hyper.sweep('config.seed', ['x']),
     "config.seed is 'x'; it can be a whole number of 0 or more"),
    (lambda hyper: hyper.sweep('config.train.epochs', [10 ** 400]), 'it can be a number above 0'),
    (lambda hyper: hyper.product([hyper.sweep('config.seed', [3]),
                                  hyper.sweep('config.train.base_tau', [.9, 1.5])]),
     r'The point seed=3  train.base_tau=1.5 cannot be run: train.base_tau is 1.5; it can be a '
     r'number in \[0, 1\]\.'),
    (lambda hyper: hyper.sweep('config.data.options.train_examples', [0]),
     'The point data.options.train_examples=0 cannot be run: data.options.train_examples is 0'),
    (lambda hyper: hyper.sweep('config.evals.afterwards', [('no/such.py:x',)]),
     'evals.afterwards names no/such.py:x, but there is no such file'),
    (lambda hyper: [], 'returns no points')])
def test_what_cannot_be_swept_is_said(tmp_path, make, message):
  with pytest.raises(InputError, match=message):
    points(tmp_path, make)


def test_points_are_counted_in_words(three):
  assert [sweep.counted(three[:count]) for count in (0, 1, 3)] == [
      '0 points', '1 point', '3 points']


def test_points_run_and_are_skipped_when_done(three, capfd):
  found = [with_code(point, WORKS, WORKS) for point in three]
  assert [sweep.state(point) for point in found] == ['waiting'] * 3
  assert run(found, slots=[{}, {}]) == []
  assert [sweep.state(point) for point in found] == ['done'] * 3
  assert 'at work' in (found[0].folder / sweep.LOG).read_text()
  capfd.readouterr()
  run(found)
  assert capfd.readouterr().out == ''


def test_a_failing_point_is_named_with_its_last_lines_and_stops_nobody(three, capfd):
  found = [with_code(point, *codes) for point, codes in
           zip(three, [[WORKS], [FAILS, WORKS], [WORKS]])]
  assert run(found) == [found[1]]
  assert [sweep.state(point) for point in found] == ['done', 'failed', 'done']
  printed = capfd.readouterr().out
  assert f'{found[1].digest}: stage0 failed with code 1  seed=1' in printed
  assert '  before\n  no such luck' in printed
  failure = json.loads((found[1].folder / sweep.FAILURE).read_text())
  assert failure == dict(stage='stage0', code=1, overrides={'seed': 1},
                         last_lines=['before', 'no such luck'])
  # Mended, it runs, and from the stage that failed.
  mended = [*found[:1], with_code(three[1], WORKS, WORKS), *found[2:]]
  assert run(mended) == [] and sweep.state(mended[1]) == 'done'


def test_a_stage_that_is_done_is_not_repeated(three):
  point = with_code(three[0], 'assert not result.exists(); result.write_text("")', FAILS)
  run([point])
  point = with_code(three[0], 'sys.exit("again")', WORKS)
  assert run([point]) == []


def test_each_slot_has_its_devices(three):
  code = 'result.write_text(os.environ["SLOT"])'
  found = [with_code(point, code) for point in three]
  run(found, slots=[dict(SLOT='a'), dict(SLOT='b')])
  assert {point.stages[0].result.read_text() for point in found} <= {'a', 'b'}


def test_a_run_that_outlives_its_sweep_is_not_started_twice(three, capfd):
  """The child holds the lock after its parent was killed."""
  point = with_code(three[0], 'print("up", flush=True); sys.stdin.read(); result.write_text("")')
  code = ('import sys\nfrom byol_jax.sweep import runner\n'
          'from tests.sweep import test_points as t\n'
          f'p = [q for q in t.points({str(point.folder.parents[1])!r}) '
          f'if q.digest == {point.digest!r}][0]\n'
          'runner.run('
          f'[t.with_code(p, {"print(chr(117), flush=True); sys.stdin.read()"!r})], '
          'slots=[{}], progress=lambda: None)')
  parent = subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
  assert 'starts' in parent.stdout.readline()
  while not (point.folder / sweep.LOG).exists() or not (point.folder / sweep.LOG).read_text():
    assert parent.poll() is None
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  assert sweep.state(point) == 'running'
  run([point])
  assert 'another process is running it' in capfd.readouterr().out
  parent.stdin.close()


def test_printed_commands_and_the_slurm_script_hold_every_point(three):
  lines = sweep.commands(three)
  assert len(lines) == 3 and all(f'{sys.executable} -m experiments.pretrain' in line and
                                 ' -m experiments.evaluate' in line for line in lines)
  script = sweep.slurm_script(three)
  assert '#SBATCH --array=0-2' in script and all(line in script for line in lines)
  checked = subprocess.run(['bash', '-n'], input=script, text=True, capture_output=True,
                           env=os.environ)
  assert checked.returncode == 0, checked.stderr


SAVES = """import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
result.with_name("begun").write_text("")
while True: signal.pause()"""


@pytest.mark.parametrize('number', preemption.SIGNALS)
def test_a_sweep_that_is_asked_to_stop_lets_its_runs_save(three, number):
  found = [with_code(three[0], WORKS), *(with_code(point, SAVES) for point in three[1:])]
  last = [point.folder / 'begun' for point in found[1:]]

  def ask():
    while not all(path.exists() for path in last):
      pass
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=ask)
  thread.start()
  with pytest.raises(preemption.Preempted) as stopped:
    run(found, slots=({}, {}))
  thread.join()
  assert str(stopped.value) == (
      f'Stopped by {number.name} with 1 of 3 points done; run the same command to resume.')
  assert [sweep.state(point) for point in found] == ['done', 'interrupted', 'interrupted']


def test_a_run_is_out_of_the_reach_of_the_terminal(three):
  found = with_code(three[0], 'result.write_text(str(os.getpgid(0) == os.getpid()))')
  assert run([found]) == [] and found.stages[0].result.read_text() == 'True'


def test_an_evaluation_that_is_asked_to_stop_has_not_failed(three):
  found = with_code(three[0], 'sys.exit(143)')
  assert run([found]) == [] and sweep.state(found) == 'interrupted'


def test_slots_that_begin_and_end_at_once_write_one_table(tmp_path):
  found = [with_code(point, WORKS) for point in points(
      tmp_path, lambda hyper: hyper.sweep('config.seed', range(8)))]
  path = tmp_path / 'table'
  write = lambda: table.write(found, path)
  assert runner.run(found, slots=[{}] * 4, progress=write) == []
  # As another process does that looks at the state meanwhile.
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(lambda _: table.write(found, path), range(40)))
  assert [row['state'] for row in json.loads((tmp_path / 'table.json').read_text())] == ['done'] * 8
  assert sorted(os.listdir(tmp_path)) == ['points', 'table.csv', 'table.json']


def test_a_table_that_cannot_be_written_ends_no_run(three, capfd):
  found, calls, alone = [with_code(point, WORKS) for point in three], [], threading.Lock()

  def progress():
    assert alone.acquire(blocking=False)
    calls.append(0)
    alone.release()
    raise OSError(28, 'No space left on device', 'table.json')

  assert runner.run(found, slots=[{}, {}], progress=progress) == []
  assert [sweep.state(point) for point in found] == ['done'] * 3 and len(calls) == 6
  assert capfd.readouterr().out.count(
      "WARNING the table of the sweep was not written (OSError: [Errno 28] No space left on "
      "device: 'table.json'); the runs continue\n") == 6


def test_a_point_whose_folder_cannot_be_made_fails_alone(three, capfd):
  found = [with_code(point, WORKS) for point in three]
  found[1].folder.write_text('a file')
  assert run(found, slots=[{}, {}]) == [found[1]]
  assert sweep.state(found[0]) == sweep.state(found[2]) == 'done'
  assert f"{found[1].digest}: failed: [Errno 17] File exists: '{found[1].folder}'" in (
      capfd.readouterr().out)


def test_two_looks_at_a_point_do_not_take_each_other_for_a_run(three):
  point = with_code(three[0], FAILS)
  run([point])
  with (point.folder / sweep.LOCK).open() as look:
    fcntl.flock(look, fcntl.LOCK_SH)
    assert sweep.state(point) == 'failed'
  with (point.folder / sweep.LOCK).open() as held:
    fcntl.flock(held, fcntl.LOCK_EX)
    assert sweep.state(point) == 'running'


def test_damaged_seconds_are_said_and_the_other_points_run(three, capfd):
  found = [with_code(point, WORKS) for point in three[:2]]
  found[0].folder.mkdir(parents=True)
  (found[0].folder / sweep.SECONDS).write_text('{')
  assert run(found) == found[:1] and sweep.state(found[1]) == 'done'
  assert f'{found[0].folder / sweep.SECONDS} is damaged' in capfd.readouterr().out


def test_configs_of_the_clone_are_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'own.py').touch()
  found, *_ = points(tmp_path, evals__afterwards=('own.py:x', f'{LINEAR}:cifar10'))
  assert [stage.arguments[2] for stage in found.stages[1:]] == [
      '--config=own.py:x', f'--config={pathlib.Path(__file__).parents[2] / LINEAR}:cifar10']
  with pytest.raises(InputError, match='evals.afterwards names none.py, but there is no such file'):
    points(tmp_path, evals__afterwards=('none.py',))


def test_devices_that_no_run_would_find_are_said_once(three, tmp_path, monkeypatch, capfd):
  monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
  monkeypatch.setenv('PYTHONPATH', str(pathlib.Path(__file__).parents[2]))
  with pytest.raises(InputError, match='^JAX_PLATFORMS is tpu, and JAX finds no tpu device here'):
    run(three)
  assert not three[0].folder.exists() and capfd.readouterr().out == ''


def test_where_no_point_is_left_no_device_is_looked_for(three, monkeypatch):
  done = [with_code(point, WORKS) for point in three]
  run(done)
  monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
  assert run(done) == []


LINEAR = 'experiments/configs/eval/linear.py'


def test_two_evaluations_of_one_name_are_refused(tmp_path):
  with pytest.raises(InputError, match="afterwards has two configs that are called 'linear'"):
    sweep.points(lambda: tiny.config(evals__afterwards=(LINEAR, f'{LINEAR}:cifar10')),
                 get_hyper, config_path='tests/tiny.py', overrides={}, workdir=tmp_path)
