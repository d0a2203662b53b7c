"""results.json: what is missing in it, and which of several are seeds of one evaluation."""

import json
import os
import shutil

import pytest

from byol_jax.errors import InputError
from byol_jax.evaluation import results

FOUND = dict(step=12, seed=0, digest='a' * 64, dataset='x', chance=.1, test_split_reads=1,
             images=dict(train=1, validation=1, test=1), pretraining=dict(seed=0, epochs=2.),
             config=dict(seed=0), encoders={name: dict(
                 knn=dict(top1=.5, top5=.75, options=dict(k=5, temperature=.07)),
                 few_shot=dict(top1_5_shots=.25, options=dict(shots=[5], seed=0)))
                 for name in ('pretrained', 'random')})


def changed(*path, value=None):
  """FOUND with a value at the place, without the key where it is None."""
  found = json.loads(json.dumps(FOUND))
  inside = found
  for key in path[:-1]:
    inside = inside[key]
  if value is None:
    del inside[path[-1]]
  else:
    inside[path[-1]] = value
  return found


@pytest.fixture
def write(tmp_path):
  """Writes a results.json into a folder of the name, which it returns."""
  def write(name, found):
    (tmp_path / name).mkdir()
    (tmp_path / name / results.RESULTS).write_text(json.dumps(found))
    return tmp_path / name
  return write


def test_whole_results_are_read(write):
  assert results.read(write('a', FOUND)) == FOUND


@pytest.mark.parametrize('found, missing', [
    *((changed(key), key) for key in results.KEYS),
    (changed('images', 'test'), 'images.test'), (changed('images', value=3), 'images.train'),
    (changed('encoders', value={}), 'encoders'), (changed('encoders', value=[1]), 'encoders'),
    (changed('encoders', 'pretrained', value={}), 'encoders.pretrained'),
    (changed('encoders', 'random', 'knn'), 'encoders.random.knn'),
    (changed('encoders', 'pretrained', 'knn', 'top1'), 'encoders.pretrained.knn.top1'),
    (changed('encoders', 'random', 'knn', 'top5'), 'encoders.random.knn.top5'),
    (changed('encoders', 'random', 'knn', 'top1', value='0.5'), 'encoders.random.knn.top1'),
    (changed('encoders', 'pretrained', 'few_shot', 'top1_5_shots'),
     'encoders.pretrained.few_shot.top1_{}_shots'),
    (changed('encoders', 'pretrained', 'knn', value=.5), 'encoders.pretrained.knn')])
def test_what_is_missing_is_named(write, found, missing):
  folder = write('a', found)
  with pytest.raises(InputError) as error:
    results.read(folder)
  assert str(error.value) == (f'{folder}/results.json is damaged: it has no {missing!r}; remove it '
                              'and evaluate again.')


def test_results_of_an_evaluator_that_is_not_here_name_it(write):
  folder = write('a', changed('encoders', value=dict(pretrained=dict(knns=dict(top1=.5)))))
  with pytest.raises(InputError, match="No module 'knns' among the evaluators"):
    results.read(folder)


def seeds(*paths_and_values):
  """FOUND of another seed, with more that is different."""
  found = changed('seed', value=1) | dict(digest='b' * 64, pretraining=dict(seed=1, epochs=2.))
  for path, value in paths_and_values:
    inside = found
    for key in path[:-1]:
      inside = inside[key]
    inside[path[-1]] = value
  return found


def test_evaluations_that_differ_in_the_seed_are_seeds(write):
  other = seeds((('encoders', 'random', 'knn', 'top1'), .25),
                (('encoders', 'random', 'few_shot', 'options', 'seed'), 1))
  assert results.read_seeds([write('a', FOUND), write('b', other)]) == [FOUND, other]


@pytest.mark.parametrize('path, value, line', [
    (('dataset',), 'y', 'dataset: x -> y'),
    (('pretraining', 'epochs'), 3., 'pretraining.epochs: 2.0 -> 3.0'),
    (('encoders', 'random', 'knn', 'options', 'k'), 9, 'encoders.random.knn.k: 5 -> 9'),
    (('encoders', 'random', 'few_shot', 'options', 'shots'), [1, 5],
     'encoders.random.few_shot.shots: [5] -> [1, 5]')])
def test_evaluations_that_differ_in_more_are_none(write, path, value, line):
  first, second = write('a', FOUND), write('b', seeds((path, value)))
  with pytest.raises(InputError) as error:
    results.read_seeds([first, second])
  assert str(error.value) == (
      f'The evaluations of {first} and {second} differ in more than the seed:\n  {line}\n'
      'Give evaluations that differ in nothing else.')


def test_of_many_differing_keys_the_first_are_named(write):
  many = {f'key{number:02}': 1 for number in range(12)}
  with pytest.raises(InputError) as error:
    results.read_seeds([write('a', FOUND), write('b', seeds((('pretraining', 'more'), many)))])
  assert str(error.value).endswith(
      '\n  pretraining.more.key09: (absent) -> 1\n  (2 more)\n'
      'Give evaluations that differ in nothing else.')


def test_one_folder_twice_is_refused_however_it_is_spelled(write, tmp_path, monkeypatch):
  folder, other = write('a', FOUND), write('b', seeds())
  (tmp_path / 'link').symlink_to(folder)
  monkeypatch.chdir(tmp_path)
  for again in (str(folder), f'{folder}/', f'{tmp_path}/b/../a', 'a', 'link'):
    with pytest.raises(InputError) as error:
      results.read_seeds([folder, other, again])
    assert str(error.value) == (f'{again} is given twice, the first time as {folder}; '
                                'give each evaluation once.')


def test_a_copy_is_of_the_same_networks(write, tmp_path):
  folder = write('a', FOUND)
  shutil.copytree(folder, tmp_path / 'copy')
  with pytest.raises(InputError) as error:
    results.read_seeds([folder, tmp_path / 'copy'])
  assert str(error.value) == (
      f'The evaluations of {folder} and {tmp_path / "copy"} use the same networks (seed 0, '
      'sha256 aaaaaaaaaaaa); give one evaluation of each seed.')


def test_untrained_encoders_of_several_seeds_need_one_checkpoint_only(write):
  found = [dict(FOUND, config=dict(seed=seed), encoders=dict(random=FOUND['encoders']['random']))
           for seed in (0, 1)]
  assert results.read_seeds([write('a', found[0]), write('b', found[1])]) == found


def test_results_are_replaced_whole(write):
  folder = write('a', FOUND)
  results.write(folder, FOUND)
  assert sorted(os.listdir(folder)) == ['results.json', 'results.md']
