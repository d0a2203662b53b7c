"""The table of a sweep: states, scalars, and the metrics of whatever evaluators there were."""

import csv
import json
import os
import shutil

import pytest

from byol_jax.errors import InputError
from byol_jax.plots import tables
from byol_jax.sweep import points as sweep
from byol_jax.sweep import table
from tests.sweep.test_points import FAILS, WORKS, points, run, with_code

RESULTS = dict(step=12, seed=0, digest='d', dataset='x', images=dict(train=1, validation=1, test=1),
               chance=.1, test_split_reads=1)
RETRIEVED = dict(map=.5, rank1=.25, rank5=.5, rank10=1., recall_10=.75, queries=4,
                 chance_map=.125, depth=50)
PLUG_IN = """
TITLE, MAIN_METRIC = 'depth', 'error'
METRICS = {'error': 'mean error', 'within_{}': 'within {}'}
"""


@pytest.fixture
def three(tmp_path):
  return points(tmp_path)


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
  """The dotted path of an evaluator outside of the package."""
  (tmp_path / 'own_evaluators').mkdir()
  (tmp_path / 'own_evaluators' / 'depth.py').write_text(PLUG_IN)
  monkeypatch.syspath_prepend(tmp_path)
  return 'own_evaluators.depth'


def judged(point, **evaluations):
  """The point after its pretraining and evaluations; the rows of a single encoder are given."""
  stages = [sweep.Stage('pretrain', (), point.folder / 'finished.json')]
  for name, row in evaluations.items():
    folder = point.folder / name
    folder.mkdir(parents=True)
    (folder / 'results.json').write_text(json.dumps(RESULTS | dict(encoders=dict(pretrained=row))))
    stages.append(sweep.Stage(name, (), folder / 'results.json'))
  stages[0].result.write_text('{}')
  return point._replace(stages=tuple(stages))


def measured(row):
  return {name: value for name, value in row.items() if name.count('/') > 1 and name != 'folder'}


def test_a_table_keeps_finished_points_without_their_folders(three, tmp_path):
  found = [with_code(three[0], WORKS), with_code(three[1], FAILS), three[2]]
  run(found[:2])
  assert table.finished(tmp_path / 'kept.json') == {}
  rows = table.write(found, tmp_path / 'kept.json', {})
  assert all('folder' not in row for row in rows)
  kept = table.finished(tmp_path / 'kept.json')
  assert kept == {found[0].digest: rows[0]}
  shutil.rmtree(found[0].folder)
  assert table.rows(found)[0]['state'] == 'waiting'
  assert table.write(found, tmp_path / 'kept.json', kept) == rows
  # The points of another sweep, or of this one before its config changed, are not lost.
  assert table.write(found[1:], tmp_path / 'kept.json', kept) == [*rows[1:], rows[0]]


@pytest.mark.parametrize('text', ['not json', '{"point": 1}', '[1]', '[{"state": "done"}]'])
def test_a_file_that_is_no_table_is_refused(tmp_path, text):
  (tmp_path / 'kept.json').write_text(text)
  with pytest.raises(InputError, match='kept.json is not the table of a sweep'):
    table.finished(tmp_path / 'kept')


def test_the_table_has_a_row_per_point(three, tmp_path):
  found = [with_code(three[0], WORKS), with_code(three[1], FAILS), three[2]]
  run(found[:2])
  (found[0].folder / 'metrics.jsonl').write_text(
      '{"step": 1, "train/byol_loss": 3.0}\n{"step": 2, "train/byol_loss": 2.0}\n')
  rows = table.write(found, tmp_path / 'table')
  assert [row['state'] for row in rows] == ['done', 'failed', 'waiting']
  assert (rows[0]['seed'], rows[0]['step'], rows[0]['train/byol_loss']) == (0, 2, 2.)
  assert json.loads((tmp_path / 'table.json').read_text()) == rows
  with (tmp_path / 'table.csv').open() as file:
    assert [row['state'] for row in csv.DictReader(file)] == ['done', 'failed', 'waiting']
  text = tables.markdown(tables.sweep(rows))
  assert text.count('\n') == 5 and '| done | 0 | 2 | 2 |' in text and 'collapse/std' not in text


def test_every_metric_of_every_evaluator_is_a_column(three, plug_in, tmp_path):
  found = judged(
      three[0], cheap={'knn_grid': dict(top1=.5, top5=.75, k=5), 'few_shot': dict(
          top1_5_shots=.25, top1_10_shots=.5, top1_5_shots_std=.01)},
      retrieval=dict(retrieval=RETRIEVED),
      voc=dict(linear_transfer=dict(map_voc07=.625, metric='map_voc07', l2=1.)),
      own={plug_in: dict(error=.5, within_2=.75, k=3)})
  row, waiting = table.write([found, three[1]], tmp_path / 'table')
  assert measured(row) == {
      'pretrained/knn_grid/top1': .5, 'pretrained/knn_grid/top5': .75,
      'pretrained/few_shot/top1_5_shots': .25, 'pretrained/few_shot/top1_10_shots': .5,
      'pretrained/retrieval/map': .5, 'pretrained/retrieval/rank1': .25,
      'pretrained/retrieval/rank5': .5, 'pretrained/retrieval/rank10': 1.,
      'pretrained/retrieval/recall_10': .75, 'pretrained/linear_transfer/map_voc07': .625,
      'pretrained/own_evaluators.depth/error': .5, 'pretrained/own_evaluators.depth/within_2': .75}
  assert measured(waiting) == {}
  text = tables.markdown(tables.sweep([row, waiting]))
  assert '| pretrained/retrieval/map | pretrained/retrieval/rank1 |' in text.splitlines()[0]
  with (tmp_path / 'table.csv').open() as file:
    assert [line['pretrained/retrieval/map'] for line in csv.DictReader(file)] == ['0.5', '']


def test_a_metric_of_two_evaluations_is_in_the_table_twice(three):
  row, = table.rows([judged(three[0], one=dict(knn=dict(top1=.5)),
                            other=dict(knn=dict(top1=.25)))])
  assert measured(row) == {'pretrained/knn/top1': .5, 'other/pretrained/knn/top1': .25}


def test_damaged_results_are_named(three):
  found = judged(three[0], cheap=dict(knn=dict(k=5)))
  with pytest.raises(InputError) as error:
    table.rows([found])
  assert str(error.value) == (f"{found.folder}/cheap/results.json is damaged: it has no "
                              "'encoders.pretrained.knn.top1'; remove it and evaluate again.")


def test_a_full_disk_leaves_the_table_that_was_there(three, tmp_path, monkeypatch):
  table.write(three, tmp_path / 'table')
  before = {name: (tmp_path / name).read_text() for name in ('table.json', 'table.csv')}

  def full(value, file, **_):
    file.write('[{"po')
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(json, 'dump', full)
  with pytest.raises(OSError, match='No space left on device'):
    table.write(three, tmp_path / 'table')
  assert {name: (tmp_path / name).read_text() for name in before} == before
  assert sorted(os.listdir(tmp_path)) == ['table.csv', 'table.json']
