"""Synthetic shapes: ten classes that differ in outline and texture, drawn on the fly.

The data set needs no download. Everything that is unrelated to the class is random for
each image: the colours and which of them is lighter, position, size, rotation,
background and pixel noise. Raw pixels are therefore nearly useless to a linear
classifier, while two crops of one image share little besides the class.

Every image is a pure function of (seed, part, row, image size). Random numbers
come from the hash below and not from NumPy's generators, whose streams may
change. Pixels are computed only with functions that every machine rounds in the same way.
"""

import numpy as np

from byol_jax import ranges
from byol_jax.input_pipeline.memory import Arrays
from byol_jax.input_pipeline.records import PARTS, Records

# Texture and outline of each class; the position in the list is the label.
CLASSES = tuple((texture, outline)
                for texture in ('plain', 'striped', 'checkered', 'dotted', 'banded')
                for outline in ('square', 'ring'))
CLASS_NAMES = tuple(' '.join(names) for names in CLASSES)

LOCATION_OPTIONS = ()
SMALLEST_IMAGE = 16  # pixels; in a smaller image the textures cannot be told apart.
OPTIONS = dict(
    image_size=32,  # pixels; a whole number in [16, 65535]
    train_examples=8192,  # images; a whole number of 1 or more
    validation_examples=1024,  # images; a whole number of 1 or more
    test_examples=2048,  # images; a whole number of 1 or more
    # Seeds the images, not the run; a whole number
    seed=1,
)
RANGES = dict(
    image_size=ranges.whole(SMALLEST_IMAGE, 65_535), train_examples=ranges.whole(1),
    validation_examples=ranges.whole(1), test_examples=ranges.whole(1),
    seed=ranges.whole(high=ranges.LARGEST_64_BITS))
CHUNK = 256  # Images drawn at once. Limits the memory and does not change the images.

# Ranges of the random quantities: (low, high), or the largest deviation to either side.
# Lengths are in image sides, luminances and colours run from 0 to 1.
RADIUS = (0.26, 0.40)
LUMINANCE = (0.38, 0.62)
CONTRAST = (0.20, 0.38)
CHROMA = 0.10
SHADING = 0.05
NOISE = 0.08
TURN = 0.5  # turns
POSITION = 0.4  # share of the free space
PERIOD = 0.6  # Period of the textures in radii, so long that blurred views still show them.

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
DRAWS = 21  # random numbers per image, in addition to the pixel noise.


def records(part: str, *, image_size: int, train_examples: int, validation_examples: int,
            test_examples: int, seed: int) -> Records:
  """Lists the images of a part, which are drawn when they are requested.

  Args:
    part: 'train', 'validation' or 'test', whose random streams are disjoint.
    image_size: height and width in pixels, at least 16.
    train_examples: number of images in the part 'train', at least 1. Classes are balanced to
      within one image. Image i is the same whatever else is drawn.
    validation_examples: like `train_examples`, for 'validation'.
    test_examples: like `train_examples`, for 'test'.
    seed: any integer; another seed gives other images and labels.

  Returns:
    Images uint8 [N, image_size, image_size, 3] with labels 0 ... 9 that index CLASS_NAMES.
  """
  count = dict(train=train_examples, validation=validation_examples, test=test_examples)[part]
  stream = 2 * PARTS.index(part)

  def images(rows: np.ndarray) -> np.ndarray:
    drawn = np.empty((len(rows), image_size, image_size, 3), np.uint8)
    labels = _labels(rows, seed, stream)
    for start in range(0, len(rows), CHUNK):
      chunk = slice(start, start + CHUNK)
      draws = _uniforms(rows[chunk], seed, stream + 1, DRAWS + image_size ** 2)
      drawn[chunk] = _draw(labels[chunk], draws, image_size)
    return drawn

  return Records('shapes', Arrays(images, count), _labels(np.arange(count), seed, stream),
                 len(CLASSES), class_names=CLASS_NAMES)


def _labels(ids, seed, stream):
  """Labels such that every ten consecutive rows have each class once, in a random order."""
  # With a fixed order (id modulo 10), some shards would have only a few of the classes.
  tens, places = np.divmod(ids, len(CLASSES))
  order = np.argsort(_uniforms(tens, seed, stream, len(CLASSES)), axis=1, kind='stable')
  return order[np.arange(len(ids)), places].astype(np.int32)


def _uniforms(ids, seed, stream, count):
  """Uniform numbers in [0, 1), float32 [n, count]: SplitMix64 started at each id."""
  key = np.array([seed % 2 ** 64], np.uint64)
  for part in (np.array([stream], np.uint64), ids.astype(np.uint64)):
    key = _mix(_mix(key) + part)
  steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
  return (_mix(key[:, None] + steps) >> np.uint64(40)).astype(np.float32) * np.float32(2 ** -24)


def _mix(bits):
  for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
    bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
  return bits ^ (bits >> np.uint64(31))


def _draw(labels, draws, size):
  """Draws images uint8 [n, size, size, 3] from labels [n] and uniforms [n, DRAWS + size ** 2]."""
  stream = iter(draws.T[:DRAWS, :, None, None])

  def between(low, high):
    return np.float32(low) + np.float32(high - low) * next(stream)

  y, x = np.mgrid[:size, :size].astype(np.float32) * np.float32(2 / (size - 1)) - 1
  shade = sum(between(-SHADING, SHADING) * term for term in (x, y, x * y))
  inside, ink = _object(labels, x, y, between)
  sign = np.where(between(-1, 1) < 0, np.float32(-1), np.float32(1))
  middle = between(*LUMINANCE)
  ground, body, mark = (
      _colour(luminance, between)
      for luminance in (middle + shade, middle + sign * between(*CONTRAST),
                        middle - sign * between(*CONTRAST)))
  image = body + (mark - body) * ink[..., None]
  image = ground + (image - ground) * inside[..., None]
  noise = np.float32(NOISE) * (2 * draws[:, DRAWS:].reshape(-1, size, size, 1) - 1)
  return np.rint(255 * np.clip(image + noise, 0, 1)).astype(np.uint8)


def _colour(luminance, between):
  """float32 [n, ?, ?, 3]: a random tint of the given luminance [n, ?, ?]."""
  tint = np.stack([between(-CHROMA, CHROMA) for _ in 'rgb'], axis=-1)
  return luminance[..., None] + tint - np.sum(LUMA * tint, axis=-1, keepdims=True)


def _object(labels, x, y, between):
  """The shares of each pixel that are object and ink of its texture, float32 [n, size, size] each.

  x and y run from -1 to 1 over the image [size, size].
  """
  radius, turn = 2 * between(*RADIUS), 2 * np.pi * between(-TURN, TURN).astype(np.float64)
  cosine, sine = (f(turn).astype(np.float32) for f in (np.cos, np.sin))
  x, y = (p - POSITION * between(-1, 1) * (1 - radius) for p in (x, y))
  points = (x * cosine + y * sine) / radius, (y * cosine - x * sine) / radius
  phase = between(0, 1)
  inside, ink = np.empty_like(points[0]), np.empty_like(points[0])
  for label, (texture, outline) in enumerate(CLASSES):
    rows = labels == label
    here = points[0][rows], points[1][rows]
    inside[rows] = OUTLINES[outline](*here)
    ink[rows] = PERIOD * TEXTURES[texture](*(p / PERIOD for p in here), phase[rows])
  # A pixel crossed by an edge is a mixture, according to its distance to the edge in pixels.
  sharpness = radius * (x.shape[-1] / 2)
  return (np.clip(0.5 - distance * sharpness, 0, 1) for distance in (inside, ink))


def _length(x, y):
  return np.sqrt(x * x + y * y)


def _wave(x):
  """Distance to the edges of stripes of period 1; negative inside a stripe."""
  return abs(x - np.floor(x) - 0.5) - 0.25


def _checkers(x, y):
  x, y = _wave(x), _wave(y)
  return np.where(x * y < 0, -1, 1) * np.minimum(abs(x), abs(y))


# Signed distances to the outline (in radii) and to the ink (in periods), negative
# inside, as functions of the position in the object's own rotated frame.
OUTLINES = dict(
    square=lambda x, y: np.maximum(abs(x), abs(y)) - 0.8,
    ring=lambda x, y: abs(_length(x, y) - 0.72) - 0.24,
)
TEXTURES = dict(
    plain=lambda x, y, phase: np.ones_like(x),
    striped=lambda x, y, phase: _wave(x + phase),
    banded=lambda x, y, phase: _wave(_length(x, y) + phase),
    checkered=lambda x, y, phase: _checkers(x + phase, y + phase),
    dotted=lambda x, y, phase: _length(_wave(x + phase) + 0.25, _wave(y + phase) + 0.25) - 0.3,
)
