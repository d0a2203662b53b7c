"""Augmented pairs, neighbours, the map."""

import base64
import io

import numpy as np
from PIL import Image
import pytest

from byol_jax.errors import InputError
from byol_jax.plots import pictures

RNG = np.random.default_rng(0)


def decoded(uri):
  head, _, data = uri.partition(',')
  assert head == 'data:image/png;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize('side, shown', [(16, 96), (32, 96), (100, 100), (224, 128)])
@pytest.mark.parametrize('count', [1, 5])
def test_pairs_stand_side_by_side(tmp_path, side, shown, count):
  views = [np.full((count, side, side, 3), value) for value in (0., 1.)]
  views[0][-1] = .5
  pictures.draw_views(tmp_path / 'views.png', *views)
  sheet = np.asarray(Image.open(tmp_path / 'views.png'))
  rows, columns = -(-count // 4), min(count, 4)
  assert sheet.shape == (rows * (shown + 8) - 8, columns * (2 * shown + 8) - 8, 3)
  top, left = (rows - 1) * (shown + 8), (count - 1) % 4 * (2 * shown + 8)
  assert (sheet[top:top + shown, left:left + shown] == 128).all()
  assert (sheet[top:top + shown, left + shown:left + 2 * shown] == 255).all()


def test_the_nearest_are_by_cosine_and_leave_the_query_out():
  embeddings = np.array([[1., 0.], [10., 1.], [0., 1.], [-1., 0.], [0., 0.]])
  assert pictures.nearest(embeddings, [0, 2], 3).tolist() == [[1, 2, 4], [1, 0, 3]]
  assert pictures.nearest(embeddings, [0], 9).shape == (1, 4)


def test_examples_are_one_per_class_or_spread():
  assert pictures.examples(np.array([2, 0, 2, 1]), 4, 8) == [1, 3, 0]
  assert pictures.examples(np.array([2, 0, 2, 1]), 4, 2) == [1, 3]
  assert pictures.examples(None, 9, 3) == [0, 4, 8]
  assert pictures.examples(None, 2, 8) == [0, 1]


def test_the_map_keeps_groups_together():
  centers = np.eye(3)[np.arange(60) % 3] * 10
  places = pictures.positions(centers + .1 * RNG.normal(size=(60, 3)))
  assert places.shape == (60, 2) and np.isfinite(places).all()
  distance = np.linalg.norm(places[:, None] - places[None], axis=2)
  np.fill_diagonal(distance, np.inf)
  assert (distance.argmin(axis=1) % 3 == np.arange(60) % 3).all()


@pytest.mark.parametrize('embeddings, message', [
    (np.ones((20, 4)), 'the same up to rounding'), (RNG.normal(size=(5, 4)), '5 images are')])
def test_what_has_no_map_is_an_error(embeddings, message):
  with pytest.raises(InputError, match=message):
    pictures.positions(embeddings)


def test_the_picture_map_puts_images_at_their_places():
  images = np.stack([np.full((8, 8, 3), value, np.uint8) for value in (10, 200)])
  canvas = decoded(pictures.picture_map(images, np.array([[0., 0.], [1., 1.]])))
  assert (canvas[-1, 0] == (10, 10, 10, 255)).all() and (canvas[0, -1] == (200,) * 3 + (255,)).all()
  assert (canvas[..., 3] == 255).sum() == 2 * 32 * 32


def test_a_tile_is_the_image_itself():
  image = pictures.small(np.tile(np.array([0., .5, 1.]), (16, 16, 1)))
  assert (decoded(pictures.tile(image)) == (0, 128, 255)).all()
  assert pictures.small(np.zeros((224, 224, 3))).shape == (64, 64, 3)
