"""Options that say only where the data lie."""

import types

import pytest

from byol_jax import plugins
from byol_jax.errors import InputError
from byol_jax.input_pipeline import locations


def keys(dataset, **options):
  return {'data.dataset': dataset, 'seed': 0,
          **{f'data.options.{name}': value for name, value in options.items()}}


def test_each_data_set_names_its_own():
  assert {name: locations.options(name) for name in
          ('arrays', 'image_folder', 'retrieval', 'shapes', 'stl10', 'tfds', '')} == dict(
      arrays=('images', 'labels', 'test_images', 'test_labels'),
      image_folder=('train', 'validation', 'test'),
      retrieval=('root', 'query', 'gallery', 'train'), shapes=(), stl10=('folder',),
      tfds=('data_dir', 'download', 'cache_dir'), **{'': ()})


@pytest.mark.parametrize('dataset, one, other, same', [
    ('image_folder', dict(train='/a', labels='none'), dict(train='b/', labels='none'), True),
    ('image_folder', dict(train='/a', labels='none'), dict(train='/a', labels='folders'), False),
    # The held-out images are drawn, or are others.
    ('image_folder', dict(train='/a', validation=None), dict(train='/a', validation='/b'), False),
    ('arrays', dict(images='a', labels='b'), dict(images='c', labels='d'), True),
    ('arrays', dict(images='a', labels='b'), dict(images='a', labels=None), False),
    ('stl10', dict(folder='a', fold=1), dict(folder='b', fold=1), True),
    ('stl10', dict(folder='a', fold=1), dict(folder='a', fold=2), False),
    ('tfds', dict(name='a', data_dir=None, download=True), dict(name='a', data_dir='/x'), True),
    ('tfds', dict(name='a', data_dir='/x'), dict(name='b', data_dir='/x'), False),
    ('retrieval', dict(train='a.csv', root=None), dict(train='/b.csv', root=None), True),
    ('shapes', dict(seed=0), dict(seed=1), False)])
def test_a_config_without_them_says_what_the_run_is(dataset, one, other, same):
  one, other = (locations.left_out(keys(dataset, **options)) for options in (one, other))
  assert (one == other) == same


def test_a_module_of_ones_own_may_name_none(monkeypatch):
  monkeypatch.setattr(plugins, 'load', lambda kind, name: types.SimpleNamespace())
  assert locations.left_out(keys('my.set', root='/a')) == keys('my.set', root='/a')


def test_paths_can_be_given_anew():
  options = dict(train='a', validation=None, test=None, labels='none')
  moved = locations.given('image_folder', options, 'train=/b,c/d=1,test=~/e')
  assert moved == dict(options, train='/b,c/d=1', test='~/e')
  assert locations.given('image_folder', options, '') == options
  assert locations.text('image_folder', dict(moved, labels='folders')) == (
      'train=/b,c/d=1,test=~/e')


@pytest.mark.parametrize('dataset, moved, message', [
    ('image_folder', 'labels=none', "^data.locations has 'labels=none'; data set 'image_folder' "
                                    r'takes train=PATH,validation=PATH,test=PATH\.$'),
    ('image_folder', '/b', "data.locations has '/b'"),
    ('tfds', 'download=True', "'tfds' takes data_dir=PATH,cache_dir=PATH"),
    ('shapes', 'train=/a', "'shapes' takes no paths")])
def test_what_is_no_path_of_the_data_set_is_refused(dataset, moved, message):
  values = dict(download=False, data_dir=None) if dataset == 'tfds' else {}
  with pytest.raises(InputError, match=message):
    locations.given(dataset, values, moved)
