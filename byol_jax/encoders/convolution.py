"""A convolution that is also fast on images of a few pixels."""

from collections.abc import Iterator
import contextlib
import contextvars
import math

import haiku as hk
import jax
import jax.numpy as jnp

# Whether small convolutions become matrix products; `no_products` turns this off.
_PRODUCTS = contextvars.ContextVar('products', default=True)


@contextlib.contextmanager
def no_products() -> Iterator[None]:
  """Keeps all convolutions, to count their work: a product also multiplies the padding."""
  token = _PRODUCTS.set(False)
  try:
    yield
  finally:
    _PRODUCTS.reset(token)


class Conv2D(hk.Conv2D):
  """`hk.Conv2D` without bias; one matrix product if the kernel is larger than the result.

  In that case XLA swaps kernel and image, which took 20 times as long on a CPU: six
  convolutions of 2x2 pixels took 42 % of the demonstration's step.
  """

  def __init__(self, output_channels: int, kernel: int, stride: int, *, padding, name: str):
    """`padding` is that of `hk.Conv2D`; the weights are initialised in the same way."""
    super().__init__(output_channels, kernel, stride, with_bias=False, padding=padding, name=name)

  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Images [B, H, W, C] -> [B, H', W', output channels]."""
    rows, columns = self.kernel_shape
    pads = self.padding if not isinstance(self.padding, str) else jax.lax.padtype_to_pads(
        inputs.shape[1:3], self.kernel_shape, self.stride, self.padding)
    height, width = ((size + sum(pad) - kernel) // stride + 1 for size, pad, kernel, stride in zip(
        inputs.shape[1:3], pads, self.kernel_shape, self.stride))
    if not _PRODUCTS.get() or height * width >= rows * columns:
      return super().__call__(inputs)
    shape = (rows, columns, inputs.shape[-1], self.output_channels)
    w = hk.get_parameter('w', shape, inputs.dtype,
                         hk.initializers.TruncatedNormal(1 / math.sqrt(math.prod(shape[:3]))))
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    down, right = self.stride
    patches = jnp.concatenate([
        padded[:, row::down, column::right][:, :height, :width]
        for row in range(rows) for column in range(columns)], axis=-1)
    return patches @ w.reshape(-1, self.output_channels)
