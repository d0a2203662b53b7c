"""What contexts give and refuse, and features that no evaluator can use."""

import numpy as np
import pytest

from byol_jax.evaluation import contract
from byol_jax.evaluation.contract import Features, check_features


def test_a_context_gives_the_features_of_its_own_splits_only():
  parts = {split: Features(np.full((1, 2), float(number)), None, np.zeros(1, int))
           for number, split in enumerate(('train', 'validation', 'test'))}
  fitting, scoring = contract.of_features(3, **parts)
  assert fitting.num_classes == 3
  for context, own in ((fitting, {'train', 'validation'}), (scoring, {'test'})):
    for split, features in parts.items():
      if split in own:
        assert context.features(split) is features
      else:
        with pytest.raises(ValueError, match=f'not of {split!r}. `fit` sees training and held-out'):
          context.features(split)


def test_features_of_other_variables_are_asked_for_by_split():
  features = contract.restricted(lambda split, variables: (split, variables), ('train',))
  assert features('train') == ('train', None) and features('train', 'new') == ('train', 'new')
  with pytest.raises(ValueError, match="features of train, not of 'test'"):
    features('test', 'new')


@pytest.fixture
def usable():
  return Features(np.ones((3, 2), np.float32), np.array([0, 1, 2], np.int32),
                  np.arange(3, dtype=np.int32))


def test_usable_features_pass(usable):
  check_features('train', usable, 3)


@pytest.mark.parametrize('changes, message', [
    (dict(labels=None), '3 train images have no labels'),
    (dict(labels=np.array([0, 1, 3])), r'run from 0 to 3, outside 0 \.\.\. 2'),
    (dict(labels=np.array([-1, 1, 2])), 'run from -1 to 2'),
    (dict(embeddings=np.array([[0, np.nan], [np.inf, 1], [0, 1]], np.float32)),
     '2 of the 3 train images have embeddings that are not finite'),
    (dict(embeddings=np.ones((0, 2), np.float32), sample_id=np.arange(0)), 'hold no images'),
])
def test_unusable_features(usable, changes, message):
  with pytest.raises(ValueError, match=message):
    check_features('train', usable._replace(**changes), 3)
