import numpy as np
import pytest

from byol_jax.input_pipeline import subsets
from byol_jax.input_pipeline.records import DataError

# Classes of 30, 60, ... images in no order.
LABELS = np.repeat(np.arange(5), [30, 60, 90, 40, 80])[np.arange(300) * 7 % 300]
ALL = np.arange(len(LABELS))


def counts(rows):
  return np.bincount(LABELS[rows], minlength=5)


def test_as_many_of_each_class_are_held_out():
  rows = subsets.of_each_class(LABELS, 5, 20)
  assert counts(rows).tolist() == [20] * 5 and (np.diff(rows) > 0).all()
  # More of them hold all the fewer ones.
  assert set(subsets.of_each_class(LABELS, 5, 10)) < set(rows)


@pytest.mark.parametrize('share, expected', [
    (.1, [6] * 5), (.25, [15] * 5), (.5, [30] * 5), (.9, [30, 60, 70, 40, 70]),
    (1., [30, 60, 90, 40, 80])])
def test_classes_of_a_subset_differ_by_one_image_until_one_has_no_more(share, expected):
  rows = subsets.draw(LABELS, ALL, 5, share, seed=0)
  assert len(rows) == round(share * 300) and (np.diff(rows) > 0).all()
  assert np.abs(counts(rows) - expected).max() <= 1


@pytest.mark.parametrize('seed', range(3))
def test_a_larger_share_holds_every_smaller_one(seed):
  rest = np.setdiff1d(ALL, subsets.of_each_class(LABELS, 5, 10))
  shares = [subsets.draw(LABELS, rest, 5, share, seed)
            for share in (.02, .05, .1, .2, .5, .99, 1.)]
  for smaller, larger in zip(shares, shares[1:]):
    assert set(smaller) < set(larger)
  assert set(shares[-1]) == set(rest)
  assert np.ptp(counts(shares[1])) <= 1


def test_the_seed_draws_the_subset_and_not_the_held_out_images():
  first, second = (subsets.draw(LABELS, ALL, 5, .1, seed) for seed in (0, 1))
  assert len(set(first) & set(second)) < 10
  # Written down: the same on every machine and with every version of NumPy.
  assert first[:8].tolist() == [0, 12, 13, 36, 39, 45, 49, 59]
  assert subsets.of_each_class(LABELS, 5, 1).tolist() == [90, 187, 210, 259, 287]


def test_images_that_are_held_out_move_no_other_one():
  rest = np.setdiff1d(ALL, subsets.of_each_class(LABELS, 5, 1))
  whole, part = (set(subsets.draw(LABELS, rows, 5, .5, 0)) for rows in (ALL, rest))
  assert len(whole & part) > 140


def test_single_images_are_spread_over_the_classes_by_the_seed():
  labels = np.arange(1000) % 10
  extra = [np.bincount(labels[subsets.draw(labels, np.arange(1000), 10, .015, seed)]).argmax()
           for seed in range(20)]
  assert len(set(extra)) > 1


def test_classes_that_are_too_small_are_named():
  with pytest.raises(DataError, match='Class 0 has 30 images in data.options.train_split, and '
                                      'held_out_per_class 30 leaves none'):
    subsets.of_each_class(LABELS, 5, 30)
  with pytest.raises(DataError, match=r"Class 0 \('cat'\) has 30 images"):
    subsets.of_each_class(LABELS, 5, 30, ('cat', *'abcd'))


@pytest.mark.parametrize('changes, message', [
    (dict(num_classes=7), '2 of 7 classes have no training images, the first is class 5'),
    (dict(num_classes=7, class_names=[*'abcdefg']),
     r"no training images, the first is class 5 \('f'\); a balanced subset needs"),
    (dict(share=.01), 'subset_share 0.01 of 300 training images leaves 3 for 5 classes; set it '
                      'to at least 0.0167')])
def test_subsets_that_cannot_be_are_said(changes, message):
  options = dict(num_classes=5, share=.5, seed=0) | changes
  with pytest.raises(DataError, match=message):
    subsets.draw(LABELS, ALL, **options)
