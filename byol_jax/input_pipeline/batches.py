"""The interface of a split's host batches, for training and for evaluation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from byol_jax.augment.views import FORMS, Form
from byol_jax.distributed import parallel
from byol_jax.errors import InputError
from byol_jax.input_pipeline.records import Known, Shards

HostBatch = dict[str, np.ndarray]
PIPELINES = tuple(FORMS)
# Called with the ids of images that could not be read; may raise.
Unreadable = Callable[[Sequence[int]], None]


class Batches(Protocol):
  """What `memory.Split` and `streams.Stream` have in common; a `records.Store` opens them.

  num_examples: number of images over all hosts.
  num_classes: number of classes in the data set; 0 for unlabelled data.
  multi_label: whether an image has several classes.
  labelled: whether batches have labels.
  evaluation_form: the form of the images in batches for evaluation.
  """

  num_examples: int
  num_classes: int
  multi_label: bool
  labelled: bool
  evaluation_form: Form

  def train_batches(self, pipeline: str, *, policies: Sequence[Mapping[str, Any]],
                    image_size: int, resize: str, seed: int, shards: Shards, workers: int,
                    unreadable: Unreadable, first_step: int, last_step: int, batch_size: int
                    ) -> Iterator[HostBatch]:
    """Batches as `augment.views.random_views` and `augment.views.crop_and_flip` take them.

    Args:
      pipeline: for images in memory: 'memory' gives whole images, which the device crops;
        'device' gives only their rows, for `resident` images. 'tf_data', which is the only one
        that reads from disk, gives `crop1`, `crop2`, ..., uint8 [b, size, size, 3], cropped by
        tf.data.
      policies: one policy for each view; tf_data crops as they say.
      image_size: side in pixels of the views whose policy has no size of its own.
      resize: how tf_data resizes its crops, 'bicubic' or 'bilinear'.
      seed: the run's seed.
      shards: this host's shards.
      workers: number of images that tf_data decodes at once; 0 lets it decide.
      unreadable: called with the ids of images that cannot be read. Their places in
        the batch are filled with other images of the same batch.
      first_step: step of the first batch.
      last_step: step after the last batch.
      batch_size: images per step over all hosts; a multiple of `shards.total`.

    Raises:
      InputError: as in `check_count`.
    """

  def evaluation_batches(self, *, image_size: int, share: float, order: str, batch_size: int,
                         shards: Shards, workers: int, unreadable: Unreadable
                         ) -> Iterator[HostBatch]:
    """Each readable image of this host once, as `augment.views.center_views` takes them.

    Args:
      image_size: side of the views in pixels.
      share: as in `crops.center_view`.
      order: as in `crops.center_view`.
      batch_size: images per batch on this host; the last batch may be smaller.
      shards: this host's shards.
      workers: number of images decoded at once; 0 lets tf.data decide.
      unreadable: called with the ids of images that cannot be read and are left out.
    """

  def known(self) -> Known:
    """What is known without reading an image from disk; all processes must call it."""

  def fingerprint(self) -> str:
    """A digest that changes with the images, their order and labels; all processes must call it.

    It is the same for any number of processes that see the same files.
    """


def check_count(num_examples: int, virtual_shards: int) -> None:
  """Raises InputError if there are fewer training images than virtual shards."""
  if num_examples < virtual_shards:
    raise InputError(f'{num_examples} images cannot fill {virtual_shards} virtual shards; '
                     f'set --config.data.virtual_shards to at most {num_examples}.')


def gather_labels(batches: Iterable[HostBatch], data: Batches) -> np.ndarray:
  """The labels of all hosts' batches in the order of the ids; all processes must call it.

  Args:
    batches: batches of this host, with `sample_id` and `labels`.
    data: the split of these batches.

  Returns:
    int32 [N], or [N, num_classes] if an image can have several classes.
  """
  width = data.num_classes if data.multi_label else 1
  rows = [np.column_stack([batch['sample_id'], batch['labels']]) for batch in batches]
  gathered = parallel.gather_rows(np.concatenate([np.zeros((0, 1 + width), np.int32), *rows]))
  labels = gathered[np.argsort(gathered[:, 0], kind='stable'), 1:]
  return labels if data.multi_label else labels[:, 0]
