"""Words about a run's numbers."""

import json

import pytest

from byol_jax.report import diagnosis, runs
from tests.report.conftest import records


def kinds(run):
  return {finding.title: finding.kind for finding in diagnosis.findings(run)}


def text_of(run, title):
  return next(f.text for f in diagnosis.findings(run) if f.title == title)


def test_a_healthy_run_is_called_healthy(make_run):
  run = make_run('mine')
  assert set(kinds(run).values()) == {'good'} and diagnosis.has_collapsed(run) is False
  assert diagnosis.verdict(run) == diagnosis.NOT
  assert 'held-out embeddings 8.0 at step 8, 9.0 at step 1.' in text_of(run, 'Not collapsed')
  assert 'Spread 0.70, effective rank 3.0 of 16 at step 12' in text_of(run, 'Not collapsed')
  assert '3 at step 4, 1 at step 12, lowest 1 at step 12' in text_of(run, 'The loss has fallen')
  assert '30.0 % at step 4, 50.0 % at step 8; chance 10.0 %' in text_of(
      run, 'The representation has learned')


@pytest.mark.parametrize('std, rank', [(.01, 9.), (.7, 1.05)])
def test_a_collapsed_run_is_called_collapsed(make_run, std, rank):
  run = make_run('mine', records(std=std, rank=rank))
  assert kinds(run)['Collapsed'] == 'bad' and diagnosis.has_collapsed(run)
  assert 'first seen at step 4' in text_of(run, 'Collapsed')
  assert kinds(run)['The loss is that of a collapsed run'] == 'note'
  assert kinds(run)['The embedding will follow the projections'] == 'note'


def test_a_partly_collapsed_run_is_not_called_healthy(make_run):
  run = make_run('mine', records(embeddings=(20., 1.5)))
  assert kinds(run)['Partly collapsed'] == 'bad' and 'Not collapsed' not in kinds(run)
  assert diagnosis.verdict(run) == diagnosis.PARTLY and diagnosis.has_collapsed(run) is False
  assert '1.5 at step 8, 20.0 at step 1' in text_of(run, 'Partly collapsed')


@pytest.mark.parametrize('logged, title', [
    (records(embeddings=(20., 1.5), evaluated=3), 'Too early to tell'),
    (records(embeddings=(20., float('nan'))), 'The spectrum is not known'),
    (records(embeddings=(1.5,)), 'Too early to tell')])
def test_what_cannot_be_judged_is_neither_good_nor_bad(make_run, logged, title):
  run = make_run('mine', logged)
  assert kinds(run)[title] == 'note' and 'Not collapsed' not in kinds(run)
  assert diagnosis.verdict(run) == diagnosis.UNKNOWN


def test_a_recovered_run_can_have_partly_collapsed(make_run):
  later = [r | dict(step=r['step'] + 12) for r in records(embeddings=(9., 1.5))]
  run = make_run('mine', [*records(std=.01), *later])
  assert kinds(run)['Partly collapsed'] == 'bad'
  assert '3 of 6 reports, the last at step 12' in text_of(run, 'Partly collapsed')


def test_without_embeddings_a_partial_collapse_is_not_excluded(make_run):
  run = make_run('mine', records(embeddings=()))
  assert kinds(run)['The projections have not collapsed'] == 'note'
  assert 'cannot be excluded' in text_of(run, 'The projections have not collapsed')


def test_a_run_that_recovered_is_told_apart(make_run):
  run = make_run('mine', [*records(std=.01), *(r | dict(step=r['step'] + 12) for r in records())])
  assert kinds(run)['Not collapsed in the end'] == 'note'
  assert '3 of 6 reports, the last at step 12' in text_of(run, 'Not collapsed in the end')


@pytest.mark.parametrize('changes, title, kind', [
    (dict(losses=(2., 2., 2.1)), 'The loss has not fallen', 'note'),
    (dict(knn=(.1, .12)), 'The representation is near chance', 'bad'),
    (dict(knn=(.5, .4)), 'The representation has become worse', 'note'),
    (dict(knn=()), 'Quality during the run', 'missing'),
    (dict(wait=.5), 'The data are the bottleneck', 'note')])
def test_what_is_not_normal_is_said(make_run, changes, title, kind):
  assert kinds(make_run('mine', records(**changes)))[title] == kind


def test_numbers_that_are_not_finite_are_bad(make_run):
  run = make_run('mine', records(std=float('nan'), losses=(3., 2., float('nan'))))
  assert kinds(run)['Not finite'] == kinds(run)['The loss is not finite'] == 'bad'


def test_missing_numbers_are_called_missing(make_run):
  run = make_run('mine', [], finished=False)
  assert kinds(run) == {'Unfinished': 'note', 'Collapse': 'missing', 'Loss': 'missing',
                        'Quality during the run': 'missing', 'Speed': 'missing'}
  assert diagnosis.has_collapsed(run) is None and diagnosis.verdict(run) == diagnosis.UNKNOWN


def test_a_failed_point_shows_its_last_lines(tmp_path):
  folder = tmp_path / 'points' / 'aa'
  folder.mkdir(parents=True)
  (folder / 'failure.json').write_text(json.dumps(
      dict(stage='pretrain', code=1, overrides={}, last_lines=['the loss', 'is nan'])))
  run, = runs.read([tmp_path])
  assert kinds(run) == {'Failed': 'bad'}
  assert 'pretrain ended with code 1' in text_of(run, 'Failed')
  assert 'the loss\nis nan' in text_of(run, 'Failed')
