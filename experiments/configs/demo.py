"""The demonstration: BYOL on generated shapes with a quarter-width ResNet-10.

  python -m experiments.pretrain --config=experiments/configs/demo.py --workdir=DIR

Hardware: 2 CPU cores; 4 to 6 minutes, and 1 to 2 for `eval/demo.py`.
Expected: 99.3 +- 0.4 linear top-1 and 98.6 +- 1.3 kNN (`eval/demo.py`; seeds 0 to 4). The random
encoder has 34.8 +- 2.8 and 37.5 +- 3.2, raw pixels 15.6 and 65.0, the supervised encoder
98.6 +- 0.6 and 98.5 +- 0.4. Source: measured here (docs/recipes.md).

There are few images, so the run makes many small steps: 2,048 at batch 64. It differs from the
paper in its sizes and in these ways, which were chosen on held-out images. Crops keep at least half
of the image, because the outline defines the class. Views are neither blurred nor solarized, and
their brightness varies less, because each of these removes the textures that define the other
half of the class. The projector ends in a normalisation, tau starts lower, and the trust
coefficient is larger, because there are few steps with a small learning rate each.
"""

import ml_collections

from byol_jax.config import plugin_options
from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
  config = default.get_config().unlock()
  config.data.dataset = 'shapes'
  config.data.options = plugin_options('datasets', 'shapes')
  config.data.image_size = 32
  config.data.center_share = 1.0  # evaluation sees the whole of these small images
  config.model.encoder_options.update(depth=10, width=0.25, stem='medium',
                                      first_projection=False)
  config.model.projector = (256, 64)
  config.model.predictor = (256, 64)
  config.model.projector_output_norm = True
  for view in (config.view1, config.view2):
    view.update(crop_area=(0.5, 1.0), brightness=0.2, blur_probability=0.0,
                solarize_probability=0.0)
  config.train.update(epochs=16.0, batch_size=64, base_learning_rate=1.0, warmup_epochs=3.0,
                      base_tau=0.97)
  config.train.optimizer_options.update(weight_decay=1e-4, eta=1e-2)
  config.evals.every_epochs = 4.0
  config.evals.knn.k = 20
  config.log.every_steps = 100
  config.checkpoint.every_epochs = 4.0
  return config.lock()
