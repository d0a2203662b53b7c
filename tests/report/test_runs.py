"""Folders -> runs."""

import json

import pytest

from byol_jax.errors import InputError
from byol_jax.report import runs

RESULTS = dict(encoders=dict(pretrained=dict(knn=dict(top1=.5))), step=12, seed=0, digest='d',
               dataset='x', images=dict(train=1, validation=1, test=1), chance=.1,
               test_split_reads=1)


def test_a_folder_is_a_run_with_its_records(make_run):
  run = make_run('mine', seed=3)
  assert run.name == 'mine' and run.config['seed'] == 3 and run.checkpoints == [12]
  assert run.state == 'finished' and run.step == 12
  assert run.series('train/byol_loss') == ([4, 8, 12], [3., 2., 1.])
  assert run.last('knn/top1') == .5 and run.last('unknown') is None
  assert not run.problems and not run.evaluations and run.failure is None


def test_an_unfinished_run_says_so(make_run):
  run = make_run('cut', [{'step': 5, 'train/byol_loss': 1.}], finished=False)
  assert run.state == 'unfinished' and run.step == 5


def test_evaluations_below_the_folder_are_found_and_damaged_ones_named(make_run):
  run = make_run('mine')
  for name, text in (('a', json.dumps(RESULTS)), ('b/c', '{"step"')):
    (run.folder / name).mkdir(parents=True)
    (run.folder / name / 'results.json').write_text(text)
  (run.folder / 'metrics.jsonl').write_text('not json\n')
  again, = runs.read([run.folder])
  assert again.evaluations == [(run.folder / 'a', RESULTS)] and again.records == []
  assert len(again.problems) == 1 and 'b/c/results.json is damaged' in again.problems[0]


def test_a_damaged_config_is_a_problem_not_an_end(make_run):
  run = make_run('mine')
  (run.folder / 'config.json').write_text('{')
  again, = runs.read([run.folder])
  assert again.config == {} and 'config.json is damaged' in again.problems[0]


@pytest.mark.parametrize('name, text, problem', [
    ('results.json', '{"step": 12}', "results.json is damaged: it has no 'encoders'."),
    ('results.json', '[]', 'results.json is damaged: it holds no results.'),
    ('results.json', json.dumps(RESULTS | dict(encoders=dict(pretrained=dict(nets=dict(top1=.5))))),
     "results.json cannot be used: No module 'nets' among the evaluators."),
    ('results.json', json.dumps(RESULTS | dict(encoders=dict(pretrained=dict(knn=dict(k=5))))),
     "results.json is damaged: it has no 'encoders.pretrained.knn.top1'."),
    ('config.json', '{"config": {}}', "config.json is damaged: it has no 'resolved'"),
    ('config.json', '3', 'config.json is damaged'),
    ('failure.json', '{}', "failure.json is damaged: it has no 'code'")])
def test_json_of_another_shape_is_a_problem_too(make_run, name, text, problem):
  run = make_run('mine')
  (run.folder / name).write_text(text)
  again, = runs.read([run.folder])
  assert problem in again.problems[0] and not again.evaluations and again.failure is None


def test_values_that_are_no_numbers_are_left_out(make_run):
  run = make_run('mine', [{'step': 1, 'a': None}, {'step': 2, 'a': 'x'}, {'step': 3, 'a': 1}])
  assert run.series('a') == ([3], [1])


def test_a_sweep_is_its_points_in_the_order_of_its_table(make_run, tmp_path):
  for name in ('points/aa', 'points/bb'):
    make_run(name)
  failed = tmp_path / 'points' / 'cc'
  failed.mkdir()
  failure = dict(stage='pretrain', code=1, overrides={'seed': 2}, last_lines=['no'])
  (failed / 'failure.json').write_text(json.dumps(failure))
  (tmp_path / 'mine.json').write_text(json.dumps(
      [dict(point='bb'), dict(point=3), 7, dict(point='aa'), dict(point='dd')]))
  found = runs.read([tmp_path])
  assert [run.name for run in found] == ['bb', 'aa', 'dd', 'cc']
  assert [run.state for run in found] == ['finished', 'finished', 'not started', 'failed']
  assert found[3].failure == failure


def test_names_tell_folders_of_one_name_apart(make_run, tmp_path):
  for name in ('a/run', 'b/run'):
    make_run(name)
  assert [run.name for run in runs.read([tmp_path / 'a/run', tmp_path / 'b/run'])] == [
      'a/run', 'b/run']


@pytest.mark.parametrize('paths, message', [
    ([], 'Give the workdir'), (['nowhere'], 'nowhere is not a folder'),
    (['.'], 'has neither config.json nor points/'), (['mine', 'mine'], 'is given twice'),
    (['mine', 'mine/../mine'], 'is given twice')])
def test_what_is_no_run_is_an_error_that_says_what_to_give(make_run, tmp_path, paths, message):
  make_run('mine')
  with pytest.raises(InputError, match=message):
    runs.read([tmp_path / path for path in paths])
