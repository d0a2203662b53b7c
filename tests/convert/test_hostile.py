"""Nothing in a hostile file is executed, and each ends soon, in one clear error."""

import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import pytest

from tests.convert import hostile
from tests.test_fidelity import GOLDENS

SOUND = (GOLDENS / 'deepmind_format.pkl').read_bytes()
FILES = hostile.everything(SOUND)
ROOT = pathlib.Path(__file__).parents[2]
# Of processor time, for loading and scanning one file.
SECONDS = 30


@pytest.fixture(scope='module')
def verdicts(tmp_path_factory):
  """{title: what `judge_files` says}, by one process that may use 1 GiB."""
  folder = tmp_path_factory.mktemp('hostile')
  paths = {title: folder / f'{number}.pkl' for number, title in enumerate(FILES)}
  for title, path in paths.items():
    path.write_bytes(FILES[title][0])
  result = subprocess.run(
      [sys.executable, ROOT / 'tests/convert/judge_files.py', GOLDENS / 'deepmind_format.pkl',
       *paths.values()], cwd=folder, capture_output=True, text=True, timeout=280,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'OPENBLAS_NUM_THREADS': '1'})
  assert result.returncode == 0, result.stderr[-2000:]
  found = json.loads(result.stdout)
  assert not (folder / hostile.SENTINEL).exists()
  return {title: found[str(path)] for title, path in paths.items()}


def test_there_are_enough_of_them():
  assert len(FILES) >= 150


@pytest.mark.parametrize('title', FILES)
def test_is_refused_and_executes_nothing(verdicts, title):
  verdict = verdicts[title]
  assert re.search(FILES[title][1], verdict['load']), verdict['load']
  assert re.match(r'\S+\.pkl, byte \d+: ', verdict['load'])
  assert len(verdict['load']) < 600 and verdict['load'].isprintable()
  assert verdict['scan']
  assert verdict['events'] == []
  assert verdict['seconds'] < SECONDS


def test_an_ordinary_unpickler_would_have_executed_them(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pickle.loads(hostile.CONTROL)
  assert (tmp_path / hostile.SENTINEL).exists()
