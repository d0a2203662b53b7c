"""BYOL (Grill et al. 2020) on JAX and Haiku.

Importing this package imports neither TensorFlow nor JAX; `load_encoder` is the
entry for those who only want features.
"""

__version__ = '0.1.0'


def load_encoder(path, step=None):
  """The frozen encoder of a pretraining workdir; see `byol_jax.encoder.load_encoder`."""
  from byol_jax.encoder import load_encoder
  return load_encoder(path, step)
