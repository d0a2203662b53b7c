"""The training images of a split in memory, in front of an encoder."""

import functools

from byol_jax.augment import views
from byol_jax.evaluation.contract import Images


def images_of(split, encoder, *, size, shards, with_validation=None):
  """The `Images` of a split whose views have `size` pixels."""
  def batches(policies, *, seed, batch_size, first_step, last_step):
    assert len(policies) == 1
    return split.host_batches(seed=seed, batch_size=batch_size, first_step=first_step,
                              last_step=last_step, shards=shards)
  single_views = lambda policy, seed: functools.partial(
      views.crop_and_flip, form=views.WHOLE, seed=seed, policy=policy, image_size=size)
  return Images(encoder, batches, single_views, split.num_examples, size, lambda: split.labels,
                with_validation)
