"""Folders as runs leave them, written by hand."""

import json

import pytest

from byol_jax import checkpoint
from byol_jax.config import as_json
from byol_jax.report import runs
from tests import tiny


def records(*, std=.7, rank=3., knn=(.3, .5), losses=(3., 2., 1.), wait=.01,
            embeddings=(9., 8.), evaluated=7):
  """What a run of 12 steps logs."""
  found = [{'step': 0, 'time/start_seconds': 2.}, {'step': 1, 'time/compilation_seconds': 5.}]
  for i, loss in enumerate(losses):
    found.append({'step': 4 * (i + 1), 'train/byol_loss': loss, 'train/top1': .2, 'train/tau': .9,
                  'collapse/std': std, 'collapse/effective_rank': rank,
                  'time/images_per_second': 100., 'time/data_wait_share': wait,
                  'time/training_seconds': 3. * (1 - wait), 'time/data_wait_seconds': 3. * wait})
  found += [{'step': 4 * (i + 1), 'knn/top1': value} for i, value in enumerate(knn)]
  for i, value in enumerate(embeddings):
    step, spectrum = evaluated * i + 1, [.5, .3, .2 - 1e-8, 1e-8, *[0.] * 60]
    found += [{'step': step, 'embeddings/effective_rank': value},
              {'step': step, 'embeddings/spectrum': spectrum}]
  return found


@pytest.fixture
def make_run(tmp_path, monkeypatch):
  """Writes a folder: `make_run('name', records, train__base_tau=.9)`; returns its Run.

  Its checkpoints are empty folders, which are taken for sound.
  """
  monkeypatch.setattr(checkpoint, 'verify', lambda *_: '')
  def make(name, logged=None, *, finished=True, **overrides):
    folder = tmp_path / name
    (folder / 'checkpoints').mkdir(parents=True)
    if finished:
      (folder / 'checkpoints' / '12').mkdir()
    config = as_json(tiny.config(**overrides))
    resolved = dict(max_steps=12, num_classes=10, steps_per_epoch=4.)
    (folder / 'config.json').write_text(json.dumps(dict(config=config, resolved=resolved)))
    (folder / 'metrics.jsonl').write_text(
        ''.join(json.dumps(r) + '\n' for r in (records() if logged is None else logged)))
    return runs.read([folder])[0]
  return make
