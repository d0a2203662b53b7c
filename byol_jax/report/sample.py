"""Held-out images of a run and their embeddings from its last checkpoint."""

from collections.abc import Iterator

import jax
import numpy as np

from byol_jax import build, checkpoint
from byol_jax.config import plain
from byol_jax.encoder import load_encoder
from byol_jax.evaluation import features
from byol_jax.input_pipeline import loading
from byol_jax.plots import pictures
from byol_jax.report.runs import Run

BATCH_SIZE = 128  # images encoded at once


def draw(run: Run, count: int) -> pictures.Sample:
  """Up to `count` held-out images, evenly spread, with embeddings of the newest valid checkpoint.

  The test split is not read; the access is recorded in the run's splits_read.jsonl.

  Raises:
    InputError: there is no valid checkpoint, or the data cannot be read.
    OSError: the data or the workdir cannot be read or written.
  """
  step = checkpoint.latest_valid_step(run.folder, ('online', 'state'))
  encoder = load_encoder(run.folder, step)
  loader = loading.load(plain(run.config['data']), 'validation', purpose='report',
                        workdir=run.folder)
  views = build.center_views(loader.config, loader.data.evaluation_form)
  wanted = set(np.linspace(0, loader.data.num_examples - 1, count).astype(int).tolist())
  images = []

  def chosen() -> Iterator[dict[str, np.ndarray]]:
    seen = 0
    for batch in loader.evaluation_batches(BATCH_SIZE):
      rows = [row for row in range(len(batch['sample_id'])) if seen + row in wanted]
      seen += len(batch['sample_id'])
      if rows:
        images.extend(map(pictures.small, np.asarray(views(batch))[rows]))
        yield {name: array[rows] for name, array in batch.items()}

  found = features.extract(lambda variables, batch: encoder.encode(variables, views(batch)),
                           encoder.variables, chosen(), batch_size=BATCH_SIZE,
                           devices=jax.local_devices()[:1])
  return pictures.Sample(np.stack(images), found.embeddings, found.labels, step,
                         loader.data.class_names)
