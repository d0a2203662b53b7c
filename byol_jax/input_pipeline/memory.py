"""Images in memory, all of one size: their store, and the batches of a split."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import hashlib
from typing import Any, NamedTuple

import chex
import numpy as np

from byol_jax.augment import views
from byol_jax.distributed import parallel
from byol_jax.input_pipeline.batches import HostBatch, Unreadable, check_count, gather_labels
from byol_jax.input_pipeline.order import samples_of_step
from byol_jax.input_pipeline.records import (
  DataError,
  Files,
  Known,
  Selected,
  Shards,
  Subset,
  check_labels,
)


class Split(NamedTuple):
  """Records in memory, in the order of their ids.

  sample_id: int32 [n], the ids owned by this host.
  images: uint8 [n, H, W, 3].
  labels: int32 [n], or None for unlabelled data; int32 [n, num_classes] if an image can have
    several classes: 1 present, 0 absent, -1 ignored.
  num_examples: number of records in the split over all hosts.
  num_classes: number of classes in the data set; 0 for unlabelled data.
  subset: as in `records.Selected`.
  origin: as in `records.Selected`.
  class_names: as in `records.Selected`.
  summary: as in `records.Selected`.
  left_out: as in `records.Selected`.
  """

  sample_id: np.ndarray
  images: np.ndarray
  labels: np.ndarray | None
  num_examples: int
  num_classes: int
  subset: Subset | None = None
  origin: Callable[[], Files] | None = None
  class_names: tuple[str, ...] = ()
  summary: str = ''
  left_out: str = ''

  # The form of the images in batches for evaluation.
  evaluation_form = views.WHOLE

  @property
  def multi_label(self) -> bool:
    """Whether an image has several classes."""
    return self.labels is not None and self.labels.ndim == 2

  @property
  def labelled(self) -> bool:
    """Whether batches have labels."""
    return self.labels is not None

  def check(self, where: str) -> None:
    """Raises DataError for arrays of a wrong shape or type; `where` names the split."""
    images, labels = self.images, self.labels
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
      raise DataError(f'{where}: images must be uint8 [N, H, W, 3], not '
                      f'{images.dtype} {list(images.shape)}.')
    # A host may own none of the images of a small split.
    if not self.num_examples or len(self.sample_id) and not images.size:
      raise DataError(f'{where} has no images: the array has shape {list(images.shape)}.')
    if labels is not None:
      if labels.shape not in (images.shape[:1], (len(images), self.num_classes)):
        raise DataError(f'{where}: {len(images)} images but labels of shape '
                        f'{list(labels.shape)}; give one integer per image, or '
                        f'{self.num_classes} for several classes.')
      check_labels(where, labels, self.num_classes)
    chex.assert_shape(self.sample_id, images.shape[:1])

  def row_batches(self, *, first_step: int, last_step: int, seed: int, batch_size: int,
                  shards: Shards) -> Iterator[HostBatch]:
    """Batches that name the images of the steps first_step ... last_step - 1.

    Yields:
      sample_id, epoch and row (the place of the image in the split), int32 [b]; labels,
      int32 [b] or [b, num_classes], if there are any. b is this host's share of the batch.
    """
    for step in range(first_step, last_step):
      sample_id, epoch = samples_of_step(step, seed=seed, num_examples=self.num_examples,
                                         batch_size=batch_size, shards=shards)
      row = np.searchsorted(self.sample_id, sample_id).astype(np.int32)
      chex.assert_trees_all_equal(self.sample_id[row], sample_id)
      yield self._labelled(dict(sample_id=sample_id, epoch=epoch, row=row), row)

  def host_batches(self, **steps) -> Iterator[HostBatch]:
    """`row_batches` with `images`, uint8 [b, H, W, 3], instead of the rows."""
    for batch in self.row_batches(**steps):
      yield dict(batch, images=self.images[batch.pop('row')])

  def train_batches(self, pipeline: str, *, policies: Sequence[Mapping[str, Any]],
                    image_size: int, resize: str, shards: Shards, workers: int,
                    unreadable: Unreadable, **steps) -> Iterator[HostBatch]:
    """As in `batches.Batches`."""
    del unreadable
    check_count(self.num_examples, shards.total)
    if pipeline == 'device':
      return self.row_batches(shards=shards, **steps)
    batches = self.host_batches(shards=shards, **steps)
    if pipeline == 'memory':
      return batches
    # Imported here because the memory path must run without TensorFlow.
    from byol_jax.input_pipeline import tf_pipeline

    crop = tf_pipeline.random_crops(steps['seed'], policies, image_size, resize)
    return tf_pipeline.with_crops(batches, self, crop, workers)

  def evaluation_batches(self, *, batch_size: int, **_) -> Iterator[HostBatch]:
    """As in `batches.Batches`; whole images, from which the device makes the views."""
    for start in range(0, len(self.images), batch_size):
      rows = slice(start, start + batch_size)
      yield self._labelled(dict(sample_id=self.sample_id[rows], images=self.images[rows]), rows)

  def _labelled(self, batch: HostBatch, rows) -> HostBatch:
    return batch if self.labels is None else dict(batch, labels=self.labels[rows])

  def known(self) -> Known:
    """As in `batches.Batches`."""
    return Known(self.num_examples, None if self.labels is None else gather_labels(
        [dict(sample_id=self.sample_id, labels=self.labels)], self))

  def fingerprint(self) -> str:
    """A digest of the images of all processes, in the order of their ids, and of their labels."""
    labels = np.zeros((len(self.images), 0), np.int32) if self.labels is None else self.labels
    own = [np.frombuffer(hashlib.sha256(image.tobytes() + label.tobytes()).digest(), np.int32)
           for image, label in zip(self.images, labels)]
    rows = parallel.gather_rows(np.column_stack([
        self.sample_id,
        np.concatenate([np.zeros((0, 8), np.int32), *(row[None] for row in own)])]))
    digest = hashlib.sha256(f'{self.images.shape[1:]} {labels.shape[1:]}'.encode())
    digest.update(rows[np.argsort(rows[:, 0], kind='stable')].tobytes())
    return digest.hexdigest()


class Arrays(NamedTuple):
  """A store of images of one size, which are arrays or are made on request.

  images: rows, ascending int [n] -> uint8 [n, H, W, 3].
  count: number of images.
  """

  images: Callable[[np.ndarray], np.ndarray]
  count: int

  def take(self, rows: np.ndarray) -> 'Arrays':
    """As in `records.Store`."""
    return Arrays(lambda places: self.images(rows[places]), len(rows))

  def followed_by(self, other: 'Arrays') -> 'Arrays':
    """As in `records.Store`."""
    def images(places):
      own = places < self.count
      return np.concatenate([self.images(places[own]), other.images(places[~own] - self.count)])

    return Arrays(images, self.count + other.count)

  def check(self) -> None:
    """As in `records.Store`; does nothing, since the listing has checked the files."""

  def open(self, selected: Selected, shards: Shards) -> Split:
    """As in `records.Store`."""
    ids, labels = shards.sample_ids(self.count), selected.labels
    split = Split(ids, np.ascontiguousarray(self.images(ids)),
                  None if labels is None else np.asarray(labels[ids], np.int32),
                  **selected.about())
    split.check(selected.where)
    return split

  def in_memory(self, selected: Selected, shards: Shards, workers: int) -> Split:
    """As in `records.Store`."""
    del workers
    return self.open(selected, shards)
