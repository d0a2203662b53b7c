"""The evaluations during and after a run: features, kNN and the linear classifier on features."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from byol_jax import build
from byol_jax.config import plain
from byol_jax.evaluation import contract, features
from byol_jax.evaluation.contract import Features
from byol_jax.evaluators import knn
from byol_jax.input_pipeline import loading
from experiments.studies.benchmark import timing
from experiments.studies.scaling import shapes

BATCHES = 4
# The size of the bank that the queries are compared with.
BANK, QUERIES, CLASSES = 20_000, 2_000, 10


def cases(config: ml_collections.ConfigDict, workdir) -> list[timing.Case]:
  """Features of held-out images, with the encoder alone as bound, and kNN of random features."""
  loader = loading.load(plain(config.data), 'validation', purpose='benchmark', workdir=workdir)
  recipe = shapes.recipe(config, loader.data.num_examples, max(1, loader.data.num_classes))
  size, batch_size = config.data.image_size, config.evals.batch_size
  variables = jax.jit(lambda key: recipe.model.init(key, jnp.zeros((2, size, size, 3))))(
      jax.random.key(config.seed))
  encode = build.encoder_function(recipe.model, config.data, loader.data.evaluation_form)
  # Held in memory: decoding is what the input's cases time.
  batches = [batch for batch, _ in zip(loader.evaluation_batches(batch_size), range(BATCHES))]
  images = sum(len(batch['sample_id']) for batch in batches)
  compiled = jax.jit(encode)
  pixels = [jax.device_put({k: batch[k] for k in ('images', 'crop1') if k in batch})
            for batch in batches]

  def encoder():
    jax.block_until_ready([compiled(variables, batch) for batch in pixels])
    return float(images)

  def extract():
    features.extract(encode, variables, iter(batches), batch_size=batch_size,
                     devices=jax.local_devices())
    return float(images)

  return [timing.Case('encoder', encoder), timing.Case('features', extract, bound='encoder'),
          _neighbours(recipe, variables, size, config.evals.knn.to_dict())]


def _neighbours(recipe, variables, size: int, options) -> timing.Case:
  """kNN among random features of the encoder's width; its work is the queries."""
  shape = jax.eval_shape(recipe.model.encode, *variables, jnp.zeros((2, size, size, 3)))
  random = np.random.default_rng(0)
  bank, queries = (Features(random.standard_normal((count, shape.shape[-1]), np.float32),
                            random.integers(0, CLASSES, count, np.int32),
                            np.arange(count, dtype=np.int32)) for count in (BANK, QUERIES))
  fitting, scoring = contract.of_features(CLASSES, train=bank, validation=queries, test=queries)
  fitted = knn.fit(fitting, **options)

  def run():
    knn.evaluate(fitted, scoring)
    return float(QUERIES)

  return timing.Case(f'kNN of {BANK}', run, unit='queries')
