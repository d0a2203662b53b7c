"""Random images for what is timed without a pipeline."""

import numpy as np


def batch(batch_size: int, image_size: int, num_classes: int, whole: bool, seed: int = 0
          ) -> dict[str, np.ndarray]:
  """A batch as `augment.views.random_views` takes it.

  Args:
    batch_size: images.
    image_size: side in pixels.
    num_classes: of the labels.
    whole: whether the images are to be cropped on the device, or are crops already.
    seed: of the pixels.

  The pixels are smooth, as those of photographs are, so that no colour operation meets
  noise alone.
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
