"""Each part of the benchmark on a tiny run."""

import json

import pytest

from byol_jax import benchmark
from tests import tiny
from tests.commands import run

CASES = dict(
    input={'pipeline'},
    augment={'views', 'views without blur', 'views without jitter', 'views without colours',
             'blur', 'blur by convolution'},
    step={'matrix product', 'views', 'step'}, end_to_end={'step alone', 'run'},
    eval={'encoder', 'features', 'kNN of 20000'})


@pytest.mark.parametrize('part', [
    pytest.param(part, marks=[pytest.mark.slow] * (part in ('step', 'end_to_end')))
    for part in benchmark.PARTS])
def test_every_part_runs(part):
  results = benchmark.run(part, tiny.config(), repeats=1, trace=None)
  assert {result.name for result in results} == CASES[part]
  assert all(result.per_second > 0 for result in results)
  table = benchmark.as_table(results)
  lines = benchmark.as_json(results).splitlines()
  assert [json.loads(line)['name'] for line in lines] == [result.name for result in results]
  assert all(f'| {name} |' in table for name in CASES[part])


@pytest.mark.slow
def test_the_steps_loss_is_told_and_falls():
  *_, step = benchmark.run('step', tiny.config(), repeats=4, trace=None)
  assert step.facts['last_loss'] < step.facts['first_loss']
  assert 0 < step.share_of_bound < 1


def test_the_command_prints_one_line_of_json_per_case():
  done = run('benchmark', 'input', config='tests/tiny.py', json=True, repeats=1)
  line, = done.stdout.splitlines()
  assert json.loads(line)['unit'] == 'images'
