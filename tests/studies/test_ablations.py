"""What is made of a sweep over a table: its numbers, the order, the page."""

import json
import pathlib

import pytest

from byol_jax.errors import InputError
from byol_jax.sweep import points as sweep
from experiments.configs.ablations import nine_rows
from experiments.studies import ablations
from tests import commands
from tests.report.conftest import records

DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'measurements'


def record(**scores):
  """Of rows with so many published points, and scores of seeds 0, 1, ..."""
  run = lambda seed, score: dict(
      seed=seed, pretrained=score, random=30., loss=1., spread=.5, rank=2.5, held_out=50.,
      collapsed=False, seconds=dict(pretrain=90., demo=30.))
  return dict(
      title='Two rows', config='table.py', date='2026-01-01', machine='a machine', data='shapes',
      images=dict(train=80, validation=10, test=20), test_split_reads=1, steps=12, epochs=4.,
      evaluator='linear_features', batch_size=8,
      rows=[dict(name=name, published=published, failed=0,
                 runs=[run(seed, score) for seed, score in enumerate(values)])
            for name, (published, values) in scores.items()])


def test_pairs_are_told_apart_by_the_standard_error_of_their_difference():
  found = ablations.pairs(record(
      best=('72.5', [60., 62., 64.]), near=('70.0', [61., 63., 65.]), low=('0.2', [70., 71., 72.]),
      same=('0.2', [10., 10., 10.])))
  by_name = {(pair.higher, pair.lower): (pair.difference, pair.clear) for pair in found}
  # Standard deviation 2 of three seeds each: 2 sqrt(2 / 3) = 1.6 is the standard error.
  assert by_name['best', 'near'] == (-1., False)
  assert by_name['best', 'low'] == (-9., True) and by_name['best', 'same'] == (52., True)
  assert ('low', 'same') not in by_name and len(found) == 5


def test_one_seed_tells_no_rows_apart_and_what_failed_is_counted():
  one = record(best=('72.5', [60.]), low=('0.2', [90., 91.]))
  assert [pair.clear for pair in ablations.pairs(one)] == [False]
  found = record(best=('72.5', [60., 62.]), diverged=('70.0', []), once=('0.2', [20., 22.]))
  found['rows'][1]['failed'], found['rows'][2]['failed'] = 3, 1
  assert [(pair.higher, pair.lower) for pair in ablations.pairs(found)] == [('best', 'once')]
  text = ablations.text(found, pathlib.PurePath('page.md'), {})
  assert '| diverged (3 of 3 failed) | 70.0 | 2 | - | 3 |' in text
  assert '| once (1 of 3 failed) | 0.2 | 3 | 21.0 +- 1.4 | 2 |' in text


def test_the_section_says_what_is_the_other_way_round_and_why():
  found = record(best=('72.5', [60., 62., 64.]), low=('0.2 +- 0.1', [70., 71., 72.]))
  text = ablations.text(found, pathlib.PurePath('page.md'), dict(low='for a reason', best='no'))
  assert ('| best | 72.5 | 1 | 62.0 +- 2.0 | 2 | 50.0 +- 0.0 | 0.50 +- 0.00 | 2.5 +- 0.0 | '
          '0 of 3 |') in text
  assert 'best (higher in the paper) is 9.0 points below low.' in text
  assert '- low: for a reason' in text and '32.0 points above it' in text
  assert '6 runs of 120 s on average (pretrain 90 s, demo 30 s), 12 minutes' in text
  right = ablations.text(record(best=('72.5', [90., 91.]), low=('0.2', [70., 71.])),
                         pathlib.PurePath('page.md'), {})
  assert '- 0 are the other way round' in right and 'Why a row' not in right


def test_a_page_keeps_what_is_above_the_mark(tmp_path):
  page, found = tmp_path / 'page.md', record(best=('72.5', [60., 62.]), low=('0.2', [7., 8.]))
  page.write_text(f'# Above\n\n{ablations.BEGIN}\nold\n')
  for _ in range(2):
    ablations.write(page, found, {})
    text = page.read_text()
    assert text.startswith(f'# Above\n\n{ablations.BEGIN}\n## Two rows') and 'old' not in text
  assert json.loads((tmp_path / 'page.json').read_text()) == found
  other = tmp_path / 'other.md'
  ablations.write(other, found, {})
  assert other.read_text().startswith('## Two rows')


def judged(run, score):
  """The point of a finished run, whose linear top-1 is `score`."""
  evaluation = run.folder / 'demo' / 'results.json'
  evaluation.parent.mkdir()
  row = lambda top1: dict(linear_features=dict(top1=top1, metric='top1'), knn=dict(top1=.1))
  evaluation.write_text(json.dumps(dict(
      encoders=dict(pretrained=row(score), random=row(.3)), step=12, seed=run.config['seed'],
      dataset='shapes', images=dict(train=64, validation=20, test=30), chance=.1,
      test_split_reads=1, digest=run.name)))
  (run.folder / 'finished.json').write_text('{}')
  (run.folder / sweep.SECONDS).write_text('{"pretrain": 60.0, "demo": 20.0}')
  stages = [sweep.Stage('pretrain', (), run.folder / 'finished.json'),
            sweep.Stage('demo', (), evaluation)]
  return sweep.Point({}, run.name, run.folder, tuple(stages))


def test_the_numbers_are_those_of_the_runs(make_run):
  points = [judged(make_run(f'{tau}-{seed}', records(std=std), train__base_tau=tau, seed=seed),
                   score)
            for tau, std, scores in ((.99, .7, (.6, .7)), (.9, .01, (.2, .1)))
            for seed, score in enumerate(scores)]
  # The last row is the points of the first once more.
  found = ablations.collect('Title', 'table.py', dict(
      baseline=('72.5', points[:2]), low=('0.3', points[2:]), same=('72.5', points[:2])))
  assert found == json.loads(json.dumps(found))
  assert (found['steps'], found['evaluator'], found['data']) == (12, 'linear_features', 'shapes')
  assert [[run['pretrained'] for run in row['runs']] for row in found['rows']] == [
      [60., 70.], [20., 10.], [60., 70.]]
  assert found['rows'][1]['runs'][1] == dict(
      seed=1, pretrained=10., random=30., loss=1., spread=.01, rank=3., held_out=50.,
      collapsed=True, seconds=dict(pretrain=60., demo=20.))


def test_a_point_that_failed_holds_nothing_up_but_the_baseline(make_run):
  points = [judged(make_run(f'run{seed}', records(), seed=seed), .5) for seed in (0, 1)]
  other = make_run('other', records())
  failed = sweep.Point({}, 'other', other.folder, (sweep.Stage('x', (), other.folder / 'no'),))
  (other.folder / sweep.FAILURE).write_text('{}')
  found = ablations.collect('Title', 'table.py', dict(
      baseline=('72.5', points), low=('0.3', [failed])))
  assert [(row['failed'], len(row['runs'])) for row in found['rows']] == [(0, 2), (1, 0)]
  with pytest.raises(InputError, match="All points of the baseline, 'baseline', have failed"):
    ablations.collect('Title', 'table.py', dict(baseline=('72.5', [failed])))


def test_what_a_run_did_not_log_is_a_dash(make_run):
  """Without kNN, as at ImageNet's scale, or statistics; run by another scheduler than ours."""
  logged = [{'step': 12, 'train/byol_loss': 1.}]
  points = [judged(make_run(f'run{seed}', logged, seed=seed), .5) for seed in (0, 1)]
  for point in points:
    (point.folder / sweep.SECONDS).unlink()
  found = ablations.collect('Title', 'table.py', dict(baseline=('72.5', points)))
  text = ablations.text(found, pathlib.PurePath('page.md'), {})
  assert '| baseline | 72.5 | 1 | 50.0 +- 0.0 | 1 | - | - | - | - |' in text
  assert '2 runs, on ' in text and 'minutes' not in text


def test_points_that_are_not_done_are_said(tmp_path):
  points = sweep.points(lambda: nine_rows.get_config('demo'), nine_rows.get_hyper,
                        config_path='nine_rows.py', overrides={}, workdir=tmp_path)
  with pytest.raises(InputError, match='27 of 27 points are not done'):
    ablations.collect('Title', 'nine_rows.py', dict(all=('1', points)))


@pytest.mark.slow
def test_the_commands_sweep_a_table_and_write_its_page(tmp_path):
  flags = dict(config='tests/tiny_ablations.py', workdir=tmp_path)
  early = commands.run('ablations', **flags)
  assert early.returncode == 1 and '3 of 3 points are not done' in early.stderr
  assert commands.run('sweep', **flags).returncode == 0
  written = commands.run('ablations', **flags)
  assert written.returncode == 0 and 'ablations.md' in written.stdout, written.stderr
  runs = json.loads((tmp_path / 'ablations.json').read_text())['rows'][0]['runs']
  assert [run['seed'] for run in runs] == [0, 1, 2]
  assert all(run['seconds']['pretrain'] > 0 for run in runs)
  assert '## A table of one row' in (tmp_path / 'ablations.md').read_text()


def test_the_measured_section_is_that_of_its_numbers():
  found = json.loads((DOCS / 'ablations.json').read_text())
  text = (DOCS / 'ablations.md').read_text().partition(ablations.BEGIN)[2]
  page = pathlib.PurePath('docs/measurements/ablations.md')
  assert text == '\n' + ablations.text(found, page, nine_rows.WHY)
