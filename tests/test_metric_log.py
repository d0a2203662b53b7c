import json
import struct
import sys

import pytest
from tensorboardX.proto import event_pb2

from byol_jax import metric_log
from byol_jax.distributed import parallel
from byol_jax.metric_log import MetricLog


def write(workdir, steps, first_step=0):
  with MetricLog(workdir, first_step=first_step, last_step=10) as log:
    for step in steps:
      log.progress(step)
      log.scalars(step, {'train/loss': step / 4, 'train/first_step': first_step})


def events(workdir):
  """The events of all files, by TensorBoard's record format."""
  for path in sorted((workdir / 'tensorboard').iterdir()):
    content = path.read_bytes()
    while content:
      length, = struct.unpack('<Q', content[:8])
      # The length is followed by its checksum, the record by its own.
      yield event_pb2.Event.FromString(content[12:12 + length])
      content = content[16 + length:]


def test_every_call_is_one_json_line(tmp_path):
  write(tmp_path, [1, 2])
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert lines == [f'{{"step": {step}, "train/loss": {step / 4}, "train/first_step": 0}}'
                   for step in (1, 2)]
  assert metric_log.read(tmp_path) == [json.loads(line) for line in lines]


def test_a_line_is_on_disk_before_the_log_is_closed(tmp_path):
  with MetricLog(tmp_path, first_step=0, last_step=10) as log:
    log.scalars(1, {'a': 2.})
    assert metric_log.read(tmp_path) == [dict(step=1, a=2.)]


def test_read_without_a_file_is_empty(tmp_path):
  assert metric_log.read(tmp_path) == []


def test_a_resumed_run_drops_the_later_records_and_goes_on(tmp_path):
  write(tmp_path, [1, 2, 3, 4, 5])
  write(tmp_path, [4, 5, 6], first_step=3)
  assert [(record['step'], record['train/first_step']) for record in metric_log.read(tmp_path)] == [
      (1, 0), (2, 0), (3, 0), (4, 3), (5, 3), (6, 3)]
  assert {path.name for path in tmp_path.iterdir()} == {'metrics.jsonl', 'tensorboard'}


def test_a_new_run_in_the_folder_drops_everything(tmp_path):
  write(tmp_path, [1, 2])
  write(tmp_path, [])
  assert metric_log.read(tmp_path) == []


@pytest.mark.parametrize('end, kept', [
    ('{"step": 3, "train/lo', [1, 2]), ('{', [1, 2]), ('{"step": 3}', [1, 2, 3])],
                         ids=['torn', 'one_byte', 'only_the_newline_is_missing'])
def test_a_last_line_that_a_kill_cut_off(tmp_path, end, kept):
  write(tmp_path, [1, 2])
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write(end)
  assert [record['step'] for record in metric_log.read(tmp_path)] == kept
  write(tmp_path, [9], first_step=8)
  assert [record['step'] for record in metric_log.read(tmp_path)] == [*kept, 9]


def test_tensorboard_gets_the_same_scalars(tmp_path):
  write(tmp_path, [1, 2])
  found = [(event.step, value.tag, value.simple_value) for event in events(tmp_path)
           for value in event.summary.value]
  assert found == [(1, 'train/loss', .25), (1, 'train/first_step', 0.),
                   (2, 'train/loss', .5), (2, 'train/first_step', 0.)]


def test_tensorboard_is_told_from_which_step_to_purge(tmp_path):
  write(tmp_path, [4], first_step=3)
  starts = [event.step for event in events(tmp_path)
            if event.session_log.status == event_pb2.SessionLog.START]
  assert starts == [4]


def test_lines_go_to_stdout_and_no_bar_is_drawn_without_a_terminal(tmp_path, capsys):
  with MetricLog(tmp_path, first_step=0, last_step=10) as log:
    for step in range(1, 11):
      log.progress(step)
    log.line('a line')
  assert capsys.readouterr() == ('a line\n', '')


def test_a_terminal_gets_a_bar_at_the_step_of_the_run(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
  with MetricLog(tmp_path, first_step=4, last_step=10) as log:
    log.progress(10)
  assert '4/10' in (err := capsys.readouterr().err) and '10/10' in err


def test_other_processes_write_nothing(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(parallel, 'is_first_process', lambda: False)
  write(tmp_path, [1])
  with MetricLog(tmp_path, first_step=0, last_step=10) as log:
    log.line('a line')
  assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ('', '')


def test_lines_that_are_no_record_are_dropped_and_kept_beside_the_log(tmp_path):
  path = tmp_path / metric_log.FILE_NAME
  damaged = b'{"step": 1, "a": 1.0}\n{"st\xff\n[3]\n{"step": 2, "a": 2.0}\n'
  path.write_bytes(damaged)
  with metric_log.MetricLog(tmp_path, first_step=2, last_step=3):
    pass
  assert [record['step'] for record in metric_log.read(tmp_path)] == [1, 2]
  assert path.with_suffix('.jsonl.damaged').read_bytes() == damaged
