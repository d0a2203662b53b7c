"""Operations on planes, for images with the colours as the last axis."""

from byol_jax.augment import ops


def on_planes(operation):
  """f(planes, ...) -> planes becomes f(image [..., H, W, 3], ...) -> image."""
  return lambda image, *args, **kwargs: ops.from_planes(
      operation(ops.to_planes(image), *args, **kwargs))
