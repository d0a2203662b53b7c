"""What the processes of a job have in common; jobs of real ones are in test_multihost.py."""

import errno
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from byol_jax import build
from byol_jax.distributed import parallel, processes
from byol_jax.errors import InputError


@pytest.fixture
def two(monkeypatch):
  """This process as the first of two: `two(theirs)` lets the other send `theirs` next."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(parallel, 'barrier', lambda name: None)
  sent = []
  monkeypatch.setattr(parallel, 'gather_rows',
                      lambda rows: np.concatenate([rows, sent.pop(0)]))
  return lambda *theirs: sent.extend(theirs)


def as_text(text):
  """What `allgather_strings` gathers of a text."""
  rows = np.frombuffer(text.encode(), np.uint8)[:, None]
  return np.array([[len(rows)]]), rows


def test_strings_of_all_processes_have_their_order_and_any_length(two):
  two(*as_text('\u00e9, the other'))
  assert processes.allgather_strings('mine') == ['mine', '\u00e9, the other']
  two(*as_text(''))
  assert processes.allgather_strings('mine') == ['mine', '']


def test_one_process_agrees_with_itself(tmp_path):
  assert processes.allgather_strings('text') == ['text']
  processes.check_shared(tmp_path)
  build.check_same_job(dict(a=1), {})


def test_processes_with_other_configs_are_told_the_keys(two):
  two(*as_text('[{"train": {"lr": 0.1, "epochs": 3}}, {"max_steps": 3}]'))
  with pytest.raises(InputError, match=r'process 0 -> process 1\):\n  train.lr: 0.2 -> 0.1\n  '
                                       'resolved.max_steps: 2 -> 3\n'):
    build.check_same_job(dict(train=dict(lr=.2, epochs=3)), dict(max_steps=2))


def test_where_the_data_lie_may_differ(two):
  two(*as_text('[{"data": {"workers": 4, "dataset": "tfds", "options": {"data_dir": "/there"}}}, '
               '{}]'))
  build.check_same_job(
      dict(data=dict(workers=2, dataset='tfds', options=dict(data_dir='/here'))), {})


def test_what_the_first_process_refuses_is_refused_by_all(two, monkeypatch):
  def refuse():
    raise InputError('one file has changed')
  two(*as_text(''))
  with pytest.raises(InputError, match='^one file has changed$'):
    processes.checked_by_first(refuse)
  two(*as_text(''))
  processes.checked_by_first(lambda: None)
  # As the second process, which does not look itself.
  monkeypatch.setattr(parallel, 'is_first_process', lambda: False)
  sent = [*as_text('one file has changed')]
  monkeypatch.setattr(parallel, 'gather_rows', lambda rows: np.concatenate([sent.pop(0), rows]))
  with pytest.raises(InputError, match='^one file has changed$'):
    processes.checked_by_first(lambda: pytest.fail('only the first process looks'))


@pytest.mark.parametrize('blind', [False, True])
def test_a_folder_that_the_other_does_not_see_is_refused(two, tmp_path, blind):
  two(*as_text('32 letters of another token'), np.array([[blind]]))
  if blind:
    with pytest.raises(InputError, match='not shared: process 1 cannot see'):
      processes.check_shared(tmp_path)
  else:
    processes.check_shared(tmp_path)
  assert not list(tmp_path.iterdir())


HOLDER = """
import pathlib, sys
from byol_jax.distributed import processes
with processes.lock_workdir(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  sys.stdin.read()
"""


def test_a_second_job_is_refused_until_the_first_is_gone_however_it_ends(
    tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(processes, 'PATIENCE', 0.)
  first = subprocess.Popen([sys.executable, '-c', HOLDER, str(tmp_path)], text=True,
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert first.stdout.readline() == 'held\n'
  with (pytest.raises(InputError, match=f'^Process {first.pid} of .* runs in the workdir'),
        processes.lock_workdir(tmp_path)):
    pass
  monkeypatch.setattr(processes, 'PATIENCE', 60.)
  monkeypatch.setattr(processes.time, 'sleep', lambda seconds: (first.kill(), first.wait()))
  for _ in range(2):
    with processes.lock_workdir(tmp_path):
      assert (tmp_path / processes.LOCK).read_text().startswith(f'Process {os.getpid()} of ')
  assert capsys.readouterr().out.count('waiting up to 60 s') == 1


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
  def no_locks(file, operation):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(processes.fcntl, 'flock', no_locks)
  with processes.lock_workdir(tmp_path):
    assert 'cannot be locked (No locks available)' in capsys.readouterr().out


@pytest.mark.parametrize('text, lost', [
    ('UNKNOWN: Gloo AllGather failed: [..] Connection reset by peer', True),
    ('UNAVAILABLE: the coordination service is gone', True),
    ('RESOURCE_EXHAUSTED: Out of memory', False), ('list index out of range', False)])
def test_the_loss_of_a_process_is_known_by_its_words(monkeypatch, text, lost):
  try:
    try:
      raise RuntimeError(text)
    except RuntimeError as cause:
      raise ValueError('a save has failed') from cause
  except ValueError as error:
    assert not processes.is_peer_failure(error)
    monkeypatch.setattr(jax, 'process_count', lambda: 2)
    assert processes.is_peer_failure(error) == lost
