"""Images in memory: what a split of them checks, and the store; its batches: test_batches.py."""

import numpy as np
import pytest

from byol_jax.input_pipeline.memory import Arrays, Split
from byol_jax.input_pipeline.records import DataError

GOOD = Split(sample_id=np.arange(4, dtype=np.int32), images=np.zeros((4, 2, 3, 3), np.uint8),
             labels=np.array([0, 2, 1, 2], np.int32), num_examples=4, num_classes=3)


@pytest.mark.parametrize('changes, message', [
    (dict(images=GOOD.images.astype(np.float32)),
     r'images must be uint8 \[N, H, W, 3\], not float32 \[4, 2, 3, 3\]'),
    (dict(images=GOOD.images[0]), r'images must be uint8 .*, not uint8 \[2, 3, 3\]'),
    (dict(images=GOOD.images[..., :2]), r'not uint8 \[4, 2, 3, 2\]'),
    (dict(images=GOOD.images[:0]), 'has no images'),
    (dict(num_examples=0), 'has no images'),
    (dict(labels=GOOD.labels[:3]), r'4 images but labels of shape \[3\]; give one integer'),
    (dict(labels=GOOD.labels[:, None]), r'labels of shape \[4, 1\]'),
    (dict(labels=GOOD.labels - 1), r'labels run from -1 to 1, outside 0 \.\.\. 2'),
    (dict(num_classes=2), r'labels run from 0 to 2, outside 0 \.\.\. 1'),
])
def test_wrong_arrays_name_the_split(changes, message):
  GOOD.check('the split')
  with pytest.raises(DataError, match=f'^the split.*{message}'):
    GOOD._replace(**changes).check('the split')


def test_ids_must_match_the_images():
  with pytest.raises(AssertionError):
    GOOD._replace(sample_id=GOOD.sample_id[:3]).check('the split')


def test_images_of_several_classes_have_a_row_of_labels():
  rows = np.array([[1, 0, -1], [0, 0, 0], [1, 1, 1], [-1, -1, 0]], np.int32)
  several = GOOD._replace(labels=rows)
  several.check('the split')
  assert several.multi_label and not GOOD.multi_label
  with pytest.raises(DataError, match=r'several classes run from 0 to 2; each must be 1 \(present'):
    GOOD._replace(labels=rows + 1).check('the split')
  with pytest.raises(DataError, match=r'labels of shape \[4, 2\]; give .* or 3 for several'):
    GOOD._replace(labels=rows[:, :2]).check('the split')


def test_unlabelled_images_pass():
  unlabelled = GOOD._replace(labels=None, num_classes=0)
  unlabelled.check('the split')
  assert GOOD.labelled and not unlabelled.labelled


def test_a_store_gives_the_images_of_its_rows():
  asked = []

  def store(start, count):
    pixels = np.arange(start, start + count, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    return Arrays(lambda rows: asked.append(list(rows)) or pixels[rows], count)

  first, second = store(0, 10), store(100, 4)
  both = first.take(np.array([7, 2, 9])).followed_by(second.take(np.array([3, 1])))
  assert both.count == 5
  assert both.images(np.arange(5))[:, 0, 0, 0].tolist() == [7, 2, 9, 103, 101]
  asked.clear()
  # What is not asked for is not made.
  assert both.images(np.array([1, 4]))[:, 0, 0, 0].tolist() == [2, 101]
  assert asked == [[2], [1]]
  assert len(both.images(np.arange(0))) == 0
