"""Random images for benchmarks without a pipeline."""

import numpy as np


def batch(batch_size: int, image_size: int, num_classes: int, whole: bool, seed: int = 0
          ) -> dict[str, np.ndarray]:
  """A batch in the form that `augment.views.random_views` takes.

  Args:
    batch_size: number of images.
    image_size: side length in pixels.
    num_classes: number of classes of the labels.
    whole: whether the images will be cropped on the device; else they are already crops.
    seed: seed of the pixels.

  The pixels are smooth, as in photographs, so that colour operations do not run on pure
  noise.
  """
  random = np.random.default_rng(seed)
  coarse = random.random((batch_size, 8, 8, 3), np.float32)
  repeats = -(-image_size // 8)
  smooth = coarse.repeat(repeats, 1).repeat(repeats, 2)[:, :image_size, :image_size]
  noise = random.random((batch_size, image_size, image_size, 3), np.float32)
  images = (255 * (.8 * smooth + .2 * noise)).astype(np.uint8)
  pixels = dict(images=images) if whole else dict(crop1=images, crop2=images[:, ::-1].copy())
  return dict(sample_id=np.arange(batch_size, dtype=np.int32),
              epoch=np.zeros(batch_size, np.int32),
              labels=random.integers(0, num_classes, batch_size, np.int32), **pixels)
