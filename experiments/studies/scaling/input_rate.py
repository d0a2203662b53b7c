"""The cost of reading for a host: images per second of processor time, by its share of shards."""

from collections.abc import Mapping
import hashlib
import time
from typing import Any

import numpy as np

from byol_jax.config import plain
from byol_jax.input_pipeline import splits
from byol_jax.input_pipeline.records import DataError, one_host


def measure(data: Mapping[str, Any], policies, *, host_count: int, batch_size: int,
            steps: int, warmup: int) -> dict[str, float]:
  """Runs the pipeline of the first of `host_count` hosts and times it.

  Args:
    data: a config's `data` section, with the tf_data pipeline.
    policies: one for each view.
    host_count: hosts of the simulated run; this host owns 1 / host_count of the
      virtual shards and of every batch.
    batch_size: batch size over all hosts.
    steps: number of timed batches.
    warmup: number of batches before them, while the shuffle buffers fill.

  Returns:
    hosts, shards (owned), images (timed), and images per second of processor time, over all
    threads, and of wall-clock time. The rate by processor time is that of one core and is less
    affected by other work on the machine.
  """
  data = plain(data)
  shards = one_host(0, host_count, data['virtual_shards'])
  stream = splits.read(data['dataset'], 'train', purpose='rate', shards=shards,
                       options=data['options'])
  # Asked for more than is taken, so that the pipeline is busy to the last timed batch.
  batches = stream.train_batches(
      'tf_data', policies=policies, image_size=data['image_size'],
      resize=data['resize'], seed=0, shards=shards, workers=data['workers'],
      unreadable=_refuse, batch_size=batch_size, first_step=0, last_step=2 * (warmup + steps) + 4)
  for _ in range(warmup):
    next(batches)
  processor, wall = time.process_time(), time.perf_counter()
  images = sum(len(next(batches)['sample_id']) for _ in range(steps))
  processor, wall = time.process_time() - processor, time.perf_counter() - wall
  return dict(hosts=host_count, shards=len(shards.owned), images=images,
              per_core_second=images / processor, per_second=images / wall)


def _refuse(sample_ids) -> None:
  raise DataError(f'Samples {sample_ids} cannot be read as images; the rate needs all images.')


def encoded(data: Mapping[str, Any], sample: int = 1000) -> dict[str, float]:
  """Facts about the training images: their number, and mean bytes and distinct ones in `sample`."""
  data = plain(data)
  stream = splits.read(data['dataset'], 'train', purpose='rate', options=data['options'])
  records = stream.records(0, np.array([0, 0])).take(sample).map(
      lambda record: stream.read(record)['encoded'])
  files = list(records.as_numpy_iterator())
  return dict(images=int(stream.num_examples), sample=len(files), distinct=len(set(files)),
              mean_bytes=float(np.mean([len(file) for file in files])))


def digest_rate(size: int = 2 ** 28) -> float:
  """The speed of a checkpoint's digest, in bytes per second of processor time."""
  block = bytes(size)
  started = time.process_time()
  hashlib.sha256(block).digest()
  return size / (time.process_time() - started)
