"""A retrieval among random features of the encoder's width: similarities alone, and ranked."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import build
from byol_jax.evaluation import ranking
from experiments.studies.benchmark import timing

QUERIES, GALLERY, IDENTITIES, CAMERAS = 1_000, 100_000, 5_000, 20
BLOCK_BYTES = 2 ** 28
DEPTH, RECALL_AT = 50, (10, 100)


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """Similarities as the bound, and all of it: order, metrics and lists; the work is queries."""
  del workdir
  size = config.data.image_size
  networks = build.build_model(config.model, 0)
  variables = jax.eval_shape(networks.init, jax.random.key(0), jnp.zeros((2, size, size, 3)))
  width = jax.eval_shape(networks.encode, *variables, jnp.zeros((1, size, size, 3))).shape[-1]
  random = np.random.default_rng(0)
  queries, gallery = (random.standard_normal((count, width), np.float32)
                      for count in (QUERIES, GALLERY))
  entries = [ranking.Entries(random.integers(0, IDENTITIES, count),
                             random.integers(0, CAMERAS, count), first + np.arange(count))
             for count, first in ((QUERIES, 0), (GALLERY, QUERIES))]

  def similarities():
    for _ in ranking.similarities(queries, gallery, block_bytes=BLOCK_BYTES):
      pass
    return float(QUERIES)

  def ranked():
    parts = [ranking.rank(scores, ranking.Entries(*(array[rows] for array in entries[0])),
                          entries[1], depth=DEPTH, recall_at=RECALL_AT)
             for rows, scores in ranking.similarities(queries, gallery, block_bytes=BLOCK_BYTES)]
    ranking.metrics(ranking.together(parts), cmc_at=(1,), recall_at=RECALL_AT)
    return float(QUERIES)

  facts = lambda: dict(gallery=GALLERY, width=width,
                       feature_mib=(queries.nbytes + gallery.nbytes) / 2 ** 20)
  return [timing.Case('similarities', similarities, unit='queries'),
          timing.Case('retrieval', ranked, unit='queries', bound='similarities', facts=facts)]
