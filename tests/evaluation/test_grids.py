import json

import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation import grids
from tests.evaluation import fine_tuning_parts as parts

POINTS = [dict(learning_rate=rate, epochs=epochs) for epochs in (1., 2.) for rate in (.1, .2, .3)]
TOP1 = (.3, .5, .4, .5, .2, .1)


class Interrupted(Exception):
  pass


def search(grid, *, stop_at=None, scores=TOP1, keep_weights=True, points=POINTS):
  """What is found, and the indices of the points that were trained."""
  trained = []

  def train(point, timed):
    index = POINTS.index(point)
    trained.append(index)
    if index == stop_at:
      raise Interrupted
    if timed:
      timed(.001)
    score = scores[index]
    return (None, None) if score is None else (dict(top1=score), f'weights {index}')

  try:
    return grids.search(grid, points, train, steps=[10] * len(points), steps_after=5,
                        metric='top1', keep_weights=keep_weights), trained
  except Interrupted:
    return None, trained


def test_the_first_of_the_best_is_chosen(tmp_path, capsys):
  found, trained = search(parts.make_grid(tmp_path))
  assert (found.chosen, found.weights, trained) == (1, 'weights 1', [0, 1, 2, 3, 4, 5])
  assert [candidate.validation['top1'] for candidate in found.candidates] == [*TOP1]
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith('an_evaluator: 6 points, 65 steps in all; 0 already finished in ')
  assert lines[1].startswith('an_evaluator: 1 ms per step, about 1 s for 65 steps')
  assert len(lines) == 2 + 6


def test_an_interrupted_grid_trains_only_what_is_left(tmp_path, capsys):
  grid = parts.make_grid(tmp_path, data='a')
  assert search(grid, stop_at=3) == (None, [0, 1, 2, 3])
  capsys.readouterr()
  found, trained = search(grid, keep_weights=False)
  assert (found.chosen, found.weights, trained) == (1, None, [3, 4, 5])
  assert '3 already finished in' in capsys.readouterr().out
  whole, _ = search(parts.make_grid(tmp_path / 'other', data='a'))
  assert [c[:2] for c in found.candidates] == [c[:2] for c in whole.candidates]


def test_the_chosen_point_is_trained_once_more_where_its_weights_are_gone(tmp_path, capsys):
  grid = parts.make_grid(tmp_path)
  search(grid, stop_at=3)
  found, trained = search(grid)
  assert (found.chosen, found.weights, trained) == (1, 'weights 1', [3, 4, 5, 1])
  assert 'were not kept; training it once more (10 steps)' in capsys.readouterr().out
  assert search(grid, keep_weights=False)[1] == []


@pytest.mark.parametrize('cut', [5, 40])
def test_a_line_that_was_cut_off_is_no_point(tmp_path, cut):
  grid = parts.make_grid(tmp_path)
  search(grid)
  lines = grid.path.read_text().splitlines()
  grid.path.write_text('\n'.join(lines[:3]) + '\n' + lines[3][:-cut])
  assert search(grid, keep_weights=False)[1] == [3, 4, 5]
  assert search(grid, keep_weights=False)[1] == []


def test_bytes_that_are_no_text_are_no_point(tmp_path):
  grid = parts.make_grid(tmp_path)
  search(grid)
  content = grid.path.read_bytes()
  grid.path.write_bytes(content[:-20] + b'\xff\xfe')
  assert search(grid, keep_weights=False)[1] == [5]
  assert search(grid, keep_weights=False)[1] == []


def test_other_data_options_or_points_are_not_reused(tmp_path):
  grid = parts.make_grid(tmp_path, encoder='a', options=dict(momentum=.9, view=(1, 2)))
  search(grid, points=POINTS[:4])
  assert search(grid, keep_weights=False)[1] == [4, 5]
  assert len(search(grid.having(options=dict(momentum=.8, view=(1, 2))))[1]) == 6
  assert len(search(grid.having(encoder='b'))[1]) == 6
  # Tuples and lists are the same in JSON.
  assert search(grid.having(options=dict(view=[1, 2], momentum=.9)), keep_weights=False)[1] == []


def test_diverged_points_are_kept_as_such_and_not_chosen(tmp_path):
  grid = parts.make_grid(tmp_path)
  scores = (None, .5, None, .6, None, None)
  assert search(grid, scores=scores)[0].chosen == 3
  found, trained = search(grid, scores=scores, keep_weights=False)
  assert trained == [] and found.candidates[0].validation is None
  records = [json.loads(line) for line in grid.path.read_text().splitlines()]
  assert records[0]['validation'] is None and records[0]['seconds'] >= 0


def test_grids_that_give_nothing_are_errors(tmp_path):
  with pytest.raises(InputError, match='grid of an_evaluator has no points'):
    search(parts.make_grid(tmp_path), points=[])
  with pytest.raises(InputError, match='All 6 points of an_evaluator have diverged, with learning '
                                       'rates from 0.1 to 0.3 .*smaller values'):
    search(parts.make_grid(tmp_path), scores=[None] * 6)
