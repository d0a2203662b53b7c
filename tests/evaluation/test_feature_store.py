from etils import epath
import numpy as np
import pytest

from byol_jax.evaluation import feature_store
from byol_jax.evaluation.contract import Features

DESCRIPTION = dict(encoder='1234', split='train', options=dict(name='tiny'))


def make_features(labelled=True, seed=0):
  random = np.random.default_rng(seed)
  return Features(random.normal(size=(7, 3)).astype(np.float32),
                  random.integers(0, 3, 7, np.int32) if labelled else None,
                  np.arange(7, dtype=np.int32))


class Maker:
  """Makes features and counts how often."""

  def __init__(self, features):
    self.features, self.calls = features, 0

  def __call__(self):
    self.calls += 1
    return self.features, ['bad.jpg']


def assert_same(found, expected):
  features, left_out = found
  assert left_out == ['bad.jpg']
  np.testing.assert_array_equal(features.embeddings, expected.embeddings)
  np.testing.assert_array_equal(features.sample_id, expected.sample_id)
  assert (features.labels is None) == (expected.labels is None)
  if expected.labels is not None:
    np.testing.assert_array_equal(features.labels, expected.labels)


@pytest.fixture
def folder(tmp_path):
  return epath.Path(tmp_path) / 'features'


@pytest.mark.parametrize('labelled', [True, False])
def test_features_are_made_once(folder, labelled):
  make = Maker(make_features(labelled))
  for _ in range(3):
    assert_same(feature_store.load_or_make(folder, DESCRIPTION, make), make.features)
  assert make.calls == 1 and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize('change', [dict(encoder='1235'), dict(split='test'),
                                    dict(options=dict(name='tiny', data_dir='elsewhere'))])
def test_any_difference_makes_others(folder, change):
  first, second = Maker(make_features()), Maker(make_features(seed=1))
  feature_store.load_or_make(folder, DESCRIPTION, first)
  assert_same(feature_store.load_or_make(folder, DESCRIPTION | change, second), second.features)
  assert second.calls == 1 and len(list(folder.iterdir())) == 2


@pytest.mark.parametrize('damage', [
    lambda path: path.write_bytes(b''), lambda path: path.write_bytes(path.read_bytes()[:-50]),
    lambda path: path.write_bytes(path.read_bytes()[:200] + b'?' + path.read_bytes()[201:])],
    ids=['empty', 'cut off', 'altered'])
def test_a_damaged_file_is_made_again(folder, damage, capsys):
  make = Maker(make_features())
  feature_store.load_or_make(folder, DESCRIPTION, make)
  path, = folder.iterdir()
  damage(path)
  for _ in range(2):
    assert_same(feature_store.load_or_make(folder, DESCRIPTION, make), make.features)
  assert make.calls == 2
  assert f'WARNING {path} cannot be used' in capsys.readouterr().out


def test_another_that_writes_the_same_file_does_no_harm(folder):
  class Both(Maker):
    def __call__(self):
      if not self.calls:
        feature_store.load_or_make(folder, DESCRIPTION, Maker(self.features))
      return super().__call__()

  make = Both(make_features())
  assert_same(feature_store.load_or_make(folder, DESCRIPTION, make), make.features)
  assert len(list(folder.iterdir())) == 1


def test_an_interrupted_write_leaves_no_file(folder, monkeypatch):
  def interrupted(file, **_):
    file.write(b'half')
    raise KeyboardInterrupt

  monkeypatch.setattr(np, 'savez', interrupted)
  with pytest.raises(KeyboardInterrupt):
    feature_store.load_or_make(folder, DESCRIPTION, Maker(make_features()))
  assert not list(folder.iterdir())


def test_keys_that_select_images_count_where_the_content_does_not_say_which():
  data = {'data.options.subset_share': .5, 'data.workers': 3, 'data.options.label_key': 'label'}
  assert set(feature_store.deciding(data)) == {'data.options.label_key'}
