import colorsys
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax.augment import crops, ops, views
from byol_jax.augment.views import (
  center_views,
  crop_and_flip,
  random_color_jitter,
  random_view,
  random_views,
)
from byol_jax.distributed import parallel
from tests.planes import on_planes

NOTHING = dict(
    crop_area=(1., 1.), crop_aspect=(1., 1.), flip_probability=0, jitter_probability=0,
    brightness=0., contrast=0., saturation=0., hue=0., grayscale_probability=0,
    blur_probability=0, blur_divider=2., blur_sigma=(1.5, 1.5), solarize_probability=0,
    solarize_threshold=.5)
EVERYTHING = dict(
    NOTHING, crop_area=(.08, 1.), crop_aspect=(3 / 4, 4 / 3), flip_probability=.5,
    jitter_probability=.8, brightness=.4, contrast=.4, saturation=.2, hue=.1,
    grayscale_probability=.2, blur_probability=.5, blur_sigma=(.1, 2.), solarize_probability=.2)
COLOURS = np.array([*itertools.product([0., 1.], repeat=3), (.5, .5, .5), (1., .5, 0.),
                    (1e-7, 0., 0.), (1., 1., 1 - 1e-7)], np.float32)


def keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def noise(*shape, seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def assert_uniform(draws, low, high):
  """The least, the largest, the mean and the standard deviation are those of U[low, high]."""
  width = high - low
  assert low - 1e-4 <= np.min(draws) < low + .02 * width
  assert high - .02 * width < np.max(draws) <= high + 1e-4
  error = 5 * width / np.sqrt(12 * len(draws))
  np.testing.assert_allclose(np.mean(draws), (low + high) / 2, atol=error)
  np.testing.assert_allclose(np.std(draws), width / np.sqrt(12), atol=error)


# Operations.

def operations(pix):
  """Name -> (ours, theirs, values): functions of an image and a value, and the values."""
  def blurs(kernel_size):
    return (lambda image, sigma, blur=blur: blur(image, sigma, kernel_size=kernel_size)
            for blur in (on_planes(ops.gaussian_blur), pix.gaussian_blur))

  return dict(
      brightness=(on_planes(ops.brightness), pix.adjust_brightness, (-.4, .3)),
      contrast=(on_planes(ops.contrast), pix.adjust_contrast, (0., .6, 1.4)),
      saturation=(on_planes(ops.saturation), pix.adjust_saturation, (0., .8, 1.2, 5.)),
      hue=(on_planes(ops.hue), pix.adjust_hue, (-.6, -.1, 0., .1, .5)),
      solarize=(on_planes(ops.solarize), pix.solarize, (.5,)),
      grayscale=(lambda image, _: on_planes(ops.grayscale)(image),
                 lambda image, _: pix.rgb_to_grayscale(image, keep_dims=True), (0.,)),
      small_blur=(*blurs(3.9), (.1, 2.)), blur_wider_than_the_image=(*blurs(20.), (1.,)))


@pytest.fixture(scope='module')
def images():
  """Noise, and one image of each colour."""
  flat = np.broadcast_to(COLOURS[:, None, None], (len(COLOURS), 6, 5, 3))
  return np.concatenate([noise(4, 6, 5, 3), flat])


def test_operations_equal_those_of_pix(images):
  pix = pytest.importorskip('dm_pix')
  for name, (ours, theirs, values) in operations(pix).items():
    ours, theirs = (jax.jit(jax.vmap(f, in_axes=(0, None))) for f in (ours, theirs))
    for value in values:
      np.testing.assert_allclose(ours(images, value), theirs(images, value), atol=1e-5,
                                 err_msg=f'{name} {value}')


def test_blur_is_a_zero_padded_correlation_with_a_normalised_gaussian():
  image, radius, sigma = noise(5, 4, 3), 3, 1.3
  taps = [math.exp(-x * x / (2 * sigma ** 2)) for x in range(-radius, radius + 1)]
  padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)))
  expected = sum(a * b * padded[i:i + 5, j:j + 4] for i, a in enumerate(taps)
                 for j, b in enumerate(taps)) / sum(taps) ** 2
  np.testing.assert_allclose(on_planes(ops.gaussian_blur)(image, sigma, 7.9), expected,
                             atol=1e-6)


# Colour jitter.

@jax.jit
def jitter(image, deltas):
  """2000 jittered copies; what has no delta is left as it is, up to rounding."""
  deltas = {f'{name}_delta': deltas.get(name, 0.)
            for name in ('brightness', 'contrast', 'saturation', 'hue')}
  planes = ops.to_planes(image)
  return jax.vmap(lambda key: ops.from_planes(
      random_color_jitter(key, planes, **deltas)))(keys(2000))


def jittered(**deltas):
  """Copies of an image of one colour, +- .05 in all channels, without its axis of size 1."""
  image = np.float32([[.5, .4, .3]]) + np.float32([-.05, .05])[:, None]
  deltas = dict(brightness=0., contrast=0., saturation=0., hue=0.) | deltas
  return np.asarray(jitter(image[None], deltas))[:, 0]


def hsv(images):
  return np.array([colorsys.rgb_to_hsv(*map(float, pixel)) for pixel in images[:, 0]])


def test_jitter_without_deltas_changes_nothing():
  np.testing.assert_allclose(
      jittered(), np.broadcast_to([[.45, .35, .25], [.55, .45, .35]], (2000, 2, 3)), atol=1e-6)


def test_jitter_adds_a_uniform_brightness():
  images = jittered(brightness=.2)
  assert_uniform(images[:, 0, 0] - .45, -.2, .2)
  np.testing.assert_allclose(images[:, 1] - images[:, 0], .1, atol=1e-6)


def test_jitter_scales_by_a_uniform_contrast():
  images = jittered(contrast=.4)
  assert_uniform((images[:, 1, 0] - images[:, 0, 0]) / .1, .6, 1.4)
  np.testing.assert_allclose(images.mean(axis=1), np.tile([.5, .4, .3], (2000, 1)), atol=1e-6)


def test_jitter_scales_by_a_uniform_saturation():
  h, s, v = hsv(jittered(saturation=.2)).T
  assert_uniform(s * .45 / .2, .8, 1.2)
  np.testing.assert_allclose(np.stack([h, v], axis=1), np.tile([1 / 12, .45], (2000, 1)), atol=1e-5)


def test_jitter_adds_a_uniform_hue():
  h, s, v = hsv(jittered(hue=.1)).T
  assert_uniform((h - 1 / 12 + .5) % 1 - .5, -.1, .1)
  np.testing.assert_allclose(np.stack([s, v], axis=1), np.tile([.2 / .45, .45], (2000, 1)),
                             atol=1e-5)


def test_jitter_clips_after_each_operation():
  images = jitter(np.ones((1, 2, 3), np.float32), dict(
      brightness=.4, contrast=0., saturation=0., hue=0.))
  assert np.max(images) == 1. and .6 <= np.min(images) < .61


def test_all_orders_of_the_jitter_are_equally_likely(monkeypatch):
  # Each operation appends its digit in base 5, so the result spells the order.
  for digit, name in enumerate(('brightness', 'contrast', 'saturation', 'hue'), start=1):
    monkeypatch.setattr(ops, name, lambda image, _, digit=digit: tuple(
        (plane + digit) / 5 for plane in image))
  spelled = jax.jit(jax.vmap(lambda key: random_color_jitter(
      key, 3 * (jnp.zeros((1, 1)),), brightness_delta=0., contrast_delta=0., saturation_delta=0.,
      hue_delta=0.)[0]))(keys(2400))
  codes, counts = np.unique(np.rint(625 * np.ravel(spelled)).astype(int), return_counts=True)
  orders = {tuple(code // 5 ** place % 5 for place in range(4)) for code in codes}
  assert orders == set(itertools.permutations((1, 2, 3, 4)))
  # Chi-square with 23 degrees of freedom: above 50 once in a thousand draws.
  assert np.sum((counts - 100) ** 2 / 100) < 50


# Whole views.

def view(image, count=1, **changes):
  draw = functools.partial(random_view, policy=NOTHING | changes)
  return np.asarray(jax.jit(jax.vmap(draw, in_axes=(0, None)))(keys(count), jnp.asarray(image)))


def test_probability_zero_changes_nothing():
  image = noise(6, 6, 3)
  np.testing.assert_array_equal(view(image, brightness=.4, contrast=.4)[0], image)


def test_the_policy_reaches_jitter_and_blur(monkeypatch):
  deltas = dict(brightness=.1, contrast=.2, saturation=.3, hue=.4)
  given = {}
  monkeypatch.setattr(views, 'random_color_jitter',
                      lambda key, image, **kwargs: given.update(kwargs) or image)
  # The result of the blur spells its arguments.
  monkeypatch.setattr(ops, 'gaussian_blur', lambda image, sigma, kernel_size: tuple(
      jnp.full_like(image[0], value) for value in (sigma / 2, kernel_size / 4, 0)))
  images = view(np.zeros((6, 5, 3), np.float32), 2000, jitter_probability=1, blur_probability=1,
                blur_sigma=(.1, 2.), **deltas)
  assert given == {f'{name}_delta': delta for name, delta in deltas.items()}
  assert_uniform(2 * images[:, 0, 0, 0], .1, 2.)
  np.testing.assert_array_equal(images[..., 1], .75)


def test_operations_of_probability_one_follow_in_the_order_of_the_paper():
  image = noise(6, 6, 3)
  gray = np.repeat(image[:, ::-1] @ np.float32([.2989, .587, .114])[:, None], 3, axis=2)
  blurred = np.asarray(on_planes(ops.gaussian_blur)(gray, 1.5, 3.))
  expected = np.where(blurred < .5, blurred, 1 - blurred)
  assert np.any(blurred >= .5)
  for actual in view(image, 20, flip_probability=1, grayscale_probability=1, blur_probability=1,
                     solarize_probability=1):
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_choices_have_their_probability_and_are_independent():
  image = np.array([[[.9, .6, .6], [.95, .7, .6]]], np.float32)
  images = view(image, 2000, flip_probability=.3, grayscale_probability=.5,
                solarize_probability=.5)
  gray = np.ptp(images, axis=-1).max(axis=(1, 2)) < 1e-6
  solarized = images.max(axis=(1, 2, 3)) < .5
  flipped = (images[:, 0, 0, 1] > images[:, 0, 1, 1]) ^ solarized
  for choice in itertools.product([False, True], repeat=3):
    share = np.mean((flipped == choice[0]) & (gray == choice[1]) & (solarized == choice[2]))
    expected = (.3 if choice[0] else .7) / 4
    np.testing.assert_allclose(
        share, expected, atol=5 * math.sqrt(expected * (1 - expected) / 2000))


def test_extreme_images_stay_finite_and_in_range():
  always = {name: 1 for name in EVERYTHING if name.endswith('_probability')}
  policy = EVERYTHING | always | dict(grayscale_probability=.2, hue=.5, saturation=1.)
  draw = jax.jit(jax.vmap(jax.vmap(functools.partial(random_view, policy=policy),
                                   in_axes=(0, None)), in_axes=(None, 0)))
  result = draw(keys(100), np.broadcast_to(COLOURS[:, None, None], (len(COLOURS), 3, 2, 3)))
  assert np.isfinite(result).all()
  assert result.min() >= 0 and result.max() <= 1


# Batches.

@pytest.fixture(scope='module')
def two_views():
  def draw(batch, seed):
    return random_views(batch, form=views.WHOLE, seed=seed, policies=(EVERYTHING, EVERYTHING),
                        image_size=6, dtype=jnp.float32)
  return draw


@pytest.fixture(scope='module')
def batched(two_views):
  return jax.jit(two_views)


@pytest.fixture
def batch():
  random = np.random.default_rng(0)
  return dict(images=random.integers(0, 256, (4, 8, 9, 3), dtype=np.uint8),
              sample_id=np.array([5, 0, 70_000, 2], np.int32),
              epoch=np.array([0, 3, 0, 1], np.int32))


def take(batch, rows):
  return {name: array[rows] for name, array in batch.items()}


def test_views_do_not_depend_on_the_place_in_the_batch(batched, batch):
  order = np.array([2, 0, 3, 1])
  for permuted, pair in zip(batched(take(batch, order), 0), batched(batch, 0)):
    np.testing.assert_allclose(permuted, pair[order], atol=1e-6)


def test_views_do_not_depend_on_the_other_images_or_the_device(two_views, batched, batch):
  devices = jax.devices()[:4]
  evaluate = parallel.pmap_evaluation(lambda _, b: two_views(b, 0), devices)
  for order in (np.arange(4), np.array([3, 2, 0, 1])):
    alone = evaluate({}, parallel.shard_batch(take(batch, order), devices))
    for single, pair in zip(alone, batched(batch, 0)):
      np.testing.assert_allclose(single[:, 0], pair[order], atol=1e-6)


@pytest.mark.parametrize('changes, seed', [
    (dict(epoch=[1, 4, 1, 2]), 0), (dict(sample_id=[6, 1, 70_001, 3]), 0), ({}, 1)],
                         ids=['epoch', 'sample_id', 'seed'])
def test_views_differ_between_epochs_images_and_seeds(batched, batch, changes, seed):
  changed = batched(batch | {k: np.array(v, np.int32) for k, v in changes.items()}, seed)
  for before, after in zip(batched(batch, 0), changed):
    assert np.all(np.abs(before - after).max(axis=(1, 2, 3)) > 1e-3)


def test_the_two_views_of_an_image_are_drawn_apart_and_in_range(batched, batch):
  first, second = batched(batch, 0)
  assert np.all(np.abs(first - second).max(axis=(1, 2, 3)) > 1e-2)
  for one in (first, second):
    assert one.shape == (4, 6, 6, 3) and one.dtype == jnp.float32
    assert one.min() >= 0 and one.max() <= 1


def test_ready_crops_are_taken_as_they_are(batch):
  ready = {f'crop{n}': np.random.default_rng(n).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
           for n in (1, 2)}
  batch = {name: batch[name] for name in ('sample_id', 'epoch')} | ready
  draw = functools.partial(random_views, batch, form=views.READY, seed=0, dtype=jnp.float32)
  pair = draw(policies=(NOTHING, NOTHING | dict(flip_probability=1)), image_size=6)
  np.testing.assert_allclose(pair[0], ready['crop1'] / 255, atol=1e-7)
  np.testing.assert_allclose(pair[1], ready['crop2'][:, :, ::-1] / 255, atol=1e-7)
  with pytest.raises(AssertionError):
    draw(policies=(NOTHING, NOTHING), image_size=5)


def test_small_views_have_their_size_and_leave_the_others_alone(batch):
  draw = lambda *policies: random_views(batch, form=views.WHOLE, seed=0, policies=policies,
                                        image_size=6, dtype=jnp.float32)
  small = NOTHING | dict(image_size=4, count=2, crop_area=(.1, .2))
  large, many = draw(NOTHING, NOTHING), draw(NOTHING, NOTHING, small, small)
  assert [view.shape for view in many] == [(4, 6, 6, 3)] * 2 + [(4, 4, 4, 3)] * 2
  for before, after in zip(large, many):
    np.testing.assert_array_equal(before, after)
  assert np.abs(many[2] - many[3]).max() > .1


@functools.partial(jax.jit, static_argnames='form')
def cropped(batch, seed, area, probability, form=views.WHOLE):
  policy = dict(crop_area=area, crop_aspect=(1., 1.), flip_probability=probability)
  return crop_and_flip(batch, form=form, seed=seed, policy=policy, image_size=8)


@pytest.mark.parametrize('probability, step', [(0., 1), (1., -1)])
def test_crop_and_flip_of_the_whole_image(batch, probability, step):
  batch['images'] = batch['images'][:, :, :8]
  np.testing.assert_allclose(cropped(batch, 0, (1., 1.), probability),
                             batch['images'][:, :, ::step] / 255, atol=1e-6)


def test_crop_and_flip_depends_on_epoch_image_and_seed_only(batch):
  batch['images'] = batch['images'][:, :, :8]
  options, order = ((.1, .6), .5), np.array([2, 0, 3, 1])
  found = cropped(batch, 0, *options)
  np.testing.assert_allclose(cropped(take(batch, order), 0, *options), found[order],
                             atol=1e-6)
  for other, seed in ((batch | dict(epoch=batch['epoch'] + 1), 0), (batch, 1)):
    changed = cropped(other, seed, *options)
    assert np.all(np.abs(changed - found).max(axis=(1, 2, 3)) > 1e-3)


@pytest.mark.parametrize('probability, step', [(0., 1), (1., -1)])
def test_crop_and_flip_only_flips_a_ready_crop(batch, probability, step):
  ready = batch.pop('images')[:, :, :8]
  batch['crop1'] = ready
  np.testing.assert_allclose(cropped(batch, 0, (.1, .2), probability, views.READY),
                             ready[:, :, ::step] / 255, atol=1e-7)


def test_crop_and_flip_and_center_views_refuse_ready_crops_of_another_size(batch):
  batch['crop1'] = batch.pop('images')[:, :, :8]
  with pytest.raises(AssertionError):
    crop_and_flip(batch, form=views.READY, seed=0, policy=NOTHING, image_size=6)
  with pytest.raises(AssertionError):
    center_views(batch, form=views.READY, image_size=6, share=1., order='crop_first')


@pytest.mark.parametrize('share, order', [(.875, 'resize_first'), (.5, 'crop_first')])
def test_center_views_are_those_of_each_image(batch, share, order):
  found = jax.jit(functools.partial(
      center_views, form=views.WHOLE, image_size=6, share=share, order=order))(batch)
  center_view = jax.jit(functools.partial(
      crops.center_view, size=6, share=share, order=order))
  assert found.shape == (4, 6, 6, 3) and found.dtype == jnp.float32
  for image, actual in zip(batch['images'], found):
    np.testing.assert_allclose(actual, center_view(image / np.float32(255)), atol=1e-6)


def test_center_views_of_ready_crops_are_the_crops(batch):
  batch['crop1'] = batch.pop('images')[:, :, :8]
  found = center_views(batch, form=views.READY, image_size=8, share=.875, order='resize_first')
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, batch['crop1'] / 255, atol=1e-7)
