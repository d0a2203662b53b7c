"""What is made of the tables of sweeps, and that the page is what the command writes."""

import json
import pathlib
import types

import pytest

from experiments import config_files
from byol_jax.errors import InputError
from byol_jax.sweep import points as sweep
from experiments.studies import recipes

ROOT = pathlib.Path(__file__).parents[2]
DOC = """What was swept.

  python -m experiments.sweep --config=sweep.py

Some words about it.
"""


def row(seed, knn, rank=3., **changes):
  return {'point': f'{seed}{knn}', 'state': 'done', **changes, 'seed': seed, 'step': 8,
          'knn/top1': knn, 'embeddings/effective_rank': rank, 'train/top1': None}


ROWS = [row(0, .5), row(0, .9, **{'train.epochs': 2., 'view1.blur_probability': 0.,
                                  'view2.blur_probability': 0.}),
        row(1, .7, 5.), row(0, .4, **{'view1.blur_probability': 0.})]


def test_seeds_of_a_setting_are_one_row_and_the_best_comes_first():
  table = recipes.summary(ROWS)
  assert table.columns == ['change', 'seeds', 'held-out kNN, %', 'effective rank of embeddings']
  assert table.rows == [
      ['`train.epochs=2.0`, `views.blur_probability=0.0`', '0', '90.0', '3.0'],
      ['none', '0, 1', '60.0 +- 14.1', '4.0 +- 1.4'],
      ['`view1.blur_probability=0.0`', '0', '40.0', '3.0']]


def test_the_section_has_the_words_of_the_config_without_its_commands():
  text = recipes.section([('configs/sweep.py', types.SimpleNamespace(__doc__=DOC), ROWS)])
  assert '### What was swept\n\n[`configs/sweep.py`](../configs/sweep.py)' in text
  assert 'Some words about it.' in text and 'python -m' not in text
  assert '| none | 0, 1 | 60.0 +- 14.1 | 4.0 +- 1.4 |' in text


def test_only_what_is_below_the_mark_is_written(tmp_path):
  page = tmp_path / 'page.md'
  with pytest.raises(InputError, match='has no line'):
    recipes.write(page, [])
  page.write_text(f'mine\n{recipes.BEGIN}\nold\n')
  recipes.write(page, [])
  assert page.read_text().startswith(f'mine\n{recipes.BEGIN}\n\n## What was tried')
  assert 'old' not in page.read_text()


def test_a_table_without_finished_points_is_refused(tmp_path):
  (tmp_path / 'table.json').write_text(json.dumps([row(0, .5) | dict(state='failed')]))
  with pytest.raises(InputError, match='has no finished point'):
    recipes.read(tmp_path / 'table.json')


def test_the_page_is_what_the_command_writes(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  page = tmp_path / 'recipes.md'
  page.write_text((ROOT / 'docs' / 'recipes.md').read_text())
  recipes.write(page, recipes.sweeps())
  assert page.read_text() == (ROOT / 'docs' / 'recipes.md').read_text()


@pytest.mark.parametrize('path', sorted(ROOT.joinpath(recipes.CONFIGS).glob('[!_]*.py')),
                         ids=lambda path: path.stem)
def test_the_tables_hold_points_of_their_sweeps(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  module, _ = config_files.module(str(path))
  digests = {point.digest for point in sweep.points(
      module.get_config, module.get_hyper, config_path=str(path), overrides={}, workdir='runs')}
  kept = {found['point'] for found in recipes.read(recipes.table_of(path))}
  assert kept <= digests
