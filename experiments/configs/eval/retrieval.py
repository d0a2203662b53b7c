"""Retrieval and re-identification with a frozen encoder: mAP, CMC and recall.

  python -m experiments.evaluate --config=experiments/configs/eval/retrieval.py:veri \
      --checkpoint=DIR --workdir=DIR2 --config.data.options.root=VeRi

Words after the colon:
  veri, veri_wild  the benchmark (--config.data.options.test_size=3000, 5000 or 10000)
  csv, folders     your own lists or folders: --config.data.options.query=FILE, gallery and, if
                   there is one, train
  a data set with classes of eval/data_sets.py, or none for the pretraining data: the test images
                   are the queries, the training images the gallery, and the class the identity
  smoke            after a data set with classes: a trial with few images

Nothing is chosen on test images, because nothing is chosen at all. Whitening and re-ranking are
off unless they are set, and then the table says so. The table compares BYOL with the random
encoder.

Hardware: 2 CPU cores, minutes for CIFAR-10 (docs/measurements/evaluations.md). Neither VeRi-776
nor VERI-Wild has been run here, and no published system uses BYOL's features unchanged. Trained
with the identities, fast-reid's ResNet-50-ibn reaches mAP 81.9 and rank-1 97.0 on VeRi-776, and
87.7, 83.5 and 77.3 mAP on VERI-Wild's 3000, 5000 and 10000 (its MODEL_ZOO.md).
"""

import ml_collections

from byol_jax.config import plugin_options
from byol_jax.errors import InputError
from byol_jax.input_pipeline.retrieval_lists import FORMATS, GALLERY
from experiments.configs.eval import data_sets, default


def get_config(words='') -> ml_collections.ConfigDict:
  config = default.with_evaluators(default.get_config().unlock(), 'retrieval')
  config.encoders = ('pretrained', 'random')
  if words in FORMATS:
    config.data.update(dataset='retrieval', options=plugin_options('datasets', 'retrieval'),
                       pipeline='tf_data')
    config.data.options.format = words
    if words in ('csv', 'folders'):
      config.data.options.train = GALLERY
    config.evaluators.retrieval.gallery = 'lists'
  else:
    try:
      data_sets.choose(config, words)
    except InputError as error:
      raise InputError(f'{error} Of lists: {", ".join(FORMATS)}.') from error
  return config.lock()
