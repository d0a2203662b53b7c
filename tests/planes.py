"""Operations on planes, for images with the colours as the last axis."""

from byol_jax import augment


def on_planes(operation):
  """f(planes, ...) -> planes becomes f(image [..., H, W, 3], ...) -> image."""
  return lambda image, *args, **kwargs: augment.from_planes(
      operation(augment.to_planes(image), *args, **kwargs))
