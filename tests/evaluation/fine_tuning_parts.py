"""A linear encoder with a running average, on a few images of 4 x 4 pixels."""


import jax
import numpy as np
from scipy.special import expit, softmax

from byol_jax.distributed import parallel
from byol_jax.evaluation import grids
from byol_jax.evaluation.contract import (
  EVAL_SPLITS,
  FIT_SPLITS,
  EvalContext,
  Features,
  FitContext,
  FrozenEncoder,
  restricted,
)
from byol_jax.input_pipeline.memory import Split
from byol_jax.input_pipeline.records import Shards
from tests.evaluation.training_images import images_of

SIZE, CLASSES, DIMENSION, SHARDS, BATCH = 4, 3, 5, Shards(4, (0, 1, 2, 3)), 8
# The view is the whole image, so that its embedding can be computed directly.
WHOLE = dict(crop_area=(1., 1.), crop_aspect=(1., 1.), flip_probability=0.)
MOMENTUM, SEED = .9, 3


def pooled(images):
  """Means of 2 x 2 pixels, [B, 12]; images are [B, 4, 4, 3]."""
  return images.reshape(-1, 2, 2, 2, 2, 3).mean((2, 4)).reshape(-1, 12)


def encode(variables, views):
  params, _ = variables
  return pooled(views) @ params['encoder']['w'] + params['encoder_norm']['offset']


def training(decay):
  def apply(params, state, views):
    inputs = pooled(views)
    mean = parallel.mean_over_devices(inputs.mean(0))
    average = decay * state['encoder_norm']['average'] + (1 - decay) * mean
    return (encode((params, state), views),
            {'encoder_norm': dict(average=average)})
  return apply


def variables():
  random = np.random.default_rng(0)
  return ({'encoder': dict(w=random.normal(size=(12, DIMENSION)).astype(np.float32)),
           'encoder_norm': dict(offset=random.normal(size=DIMENSION).astype(np.float32)),
           'projector/linear': dict(w=np.ones((2, 2), np.float32))},
          {'encoder_norm': dict(average=np.ones(12, np.float32))})


def make_split(seed, count):
  """Images whose class is their brightest colour, each class as often."""
  random = np.random.default_rng(seed)
  labels = (np.arange(count) % CLASSES).astype(np.int32)
  images = random.integers(0, 120, (count, SIZE, SIZE, 3))
  images[np.arange(count), :, :, labels] += 60
  return Split(np.arange(count, dtype=np.int32), images.astype(np.uint8), labels, count, CLASSES)


def with_several_labels(split):
  """The class itself and, of every other image, the next; the third does not count in some."""
  labels = np.eye(CLASSES, dtype=np.int32)[split.labels]
  labels[::2] |= np.roll(labels[::2], 1, axis=1)
  labels[::5, 2] = -1
  return split._replace(labels=labels)


def make_images(split, with_validation=None):
  return images_of(split, FrozenEncoder(encode, variables(), training), size=SIZE, shards=SHARDS,
                   with_validation=with_validation)


def embedder(split):
  """The encoder's variables -> features of a split."""
  return lambda variables: Features(
      np.asarray(jax.jit(encode)(variables, split.images / 255.), np.float32), split.labels,
      split.sample_id)


def fit_context(images, validation=None, folder=None, num_classes=CLASSES):
  """Of training images, the split of held-out images, and the folder of the grid."""
  features = lambda split, variables: embedder(validation)(variables)
  return FitContext(num_classes, restricted(features, FIT_SPLITS), images,
                    lambda: make_grid(folder))


def eval_context(split):
  return EvalContext(restricted(lambda _, variables: embedder(split)(variables),
                                    EVAL_SPLITS))


def make_grid(folder, **identity):
  return grids.Grid('an_evaluator', folder / 'grids' / 'points.jsonl', identity)


def reference(split, *, rate, steps, decay=0., bn_decay=.9, batch=BATCH, seed=SEED):
  """Weights after so many steps, in float64 and by the equations of the update alone."""
  params, state = variables()
  w, offset = np.float64(params['encoder']['w']), np.float64(params['encoder_norm']['offset'])
  values = [w, offset, np.zeros((DIMENSION, CLASSES)), np.zeros(CLASSES)]
  average = np.float64(state['encoder_norm']['average'])
  velocities = [np.zeros_like(value) for value in values]
  batches = split.host_batches(seed=seed, batch_size=batch, first_step=0,
                               last_step=steps, shards=SHARDS)
  for number, one in enumerate(batches):
    inputs = pooled(one['images'] / 255.)
    w, offset, v, b = values
    embeddings = inputs @ w + offset
    errors = _errors(embeddings @ v + b, one['labels']) / batch
    back = errors @ v.T
    gradients = [inputs.T @ back + decay * w, back.sum(0), embeddings.T @ errors + decay * v,
                 errors.sum(0)]
    now = rate * (1 + np.cos(np.pi * number / steps)) / 2
    velocities = [MOMENTUM * m + g for m, g in zip(velocities, gradients)]
    values = [p - now * (g + MOMENTUM * m) for p, g, m in zip(values, gradients, velocities)]
    average = bn_decay * average + (1 - bn_decay) * inputs.mean(0)
  return [*values, average]


def _errors(logits, labels):
  """Derivatives of the losses by the logits."""
  if labels.ndim == 2:
    return np.where(labels < 0, 0., expit(logits) - labels)
  return softmax(logits, axis=1) - np.eye(CLASSES)[labels]


def trained(weights):
  """The arrays of `reference`."""
  return [weights.params['encoder']['w'], weights.params['encoder_norm']['offset'],
          weights.params['classifier']['w'], weights.params['classifier']['b'],
          weights.state['encoder_norm']['average']]


def assert_trained(weights, expected):
  # Far from the start, where any training would do.
  assert np.abs(expected[2]).max() > .01
  for found, wanted in zip(trained(weights), expected):
    np.testing.assert_allclose(found, wanted, rtol=3e-4, atol=3e-5)
