"""The networks: encoder -> projector -> predictor, and the online classifier.

Online and target network are the same function of different parameters. The
target's predictor is carried along, as in the reference and its checkpoints, but
nothing reads its prediction.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import jmp

from byol_jax import plugins, ranges
from byol_jax.encoders import normalization as norms
from byol_jax.encoders.convolution import Conv2D
from byol_jax.errors import InputError

Params = Mapping[str, Mapping[str, jax.Array]]

_SIZES = ranges.Several(ranges.whole(1), least=0)
RANGES = dict(
    encoder=plugins.Module('encoders'), encoder_options=ranges.OPTIONS,
    projector=ranges.Several(ranges.whole(1)), predictor=_SIZES, small_predictor=_SIZES,
    projector_output_norm=ranges.FLAG, predictor_output_norm=ranges.FLAG,
    normalization=ranges.OneOf(norms.NORMALIZATIONS), initial_scale=ranges.SCALE,
    # In float32 a decay closer to 1 rounds to 1.
    batch_norm_decay=ranges.number(0, .9999), batch_norm_epsilon=ranges.number(1e-12, 1),
    compute_dtype=ranges.OneOf(('float32', 'bfloat16', 'float64')),
    image_mean=ranges.Several(ranges.number(-1000, 1000), exactly=3),
    image_std=ranges.Several(ranges.number(.001, 1000), exactly=3))


class Outputs(NamedTuple):
  """The network's outputs for a batch.

  embedding: [B, D], the encoder's representation.
  projection: [B, P].
  prediction: [B, P].
  logits: [B, C], the online classifier's; None for unlabelled data.
  """

  embedding: jax.Array
  projection: jax.Array
  prediction: jax.Array
  logits: jax.Array | None


class Model(NamedTuple):
  """The networks as pure functions.

  init: (key, images) -> (params, state).
  apply: (params, state, images, is_training) -> (Outputs, state), with images
    [B, H, W, 3] in [0, 1]. With `is_training`, BatchNorm uses the statistics of
    the batch over all devices and updates its averages; without, it uses the averages.
  apply_to_small: the same as `apply`, but uses the predictor for small views.
  encode: (params, state, images) -> embeddings [B, D] in evaluation mode; needs only the
    encoder's parameters.
  encode_in_training: (params, state, images) -> (embeddings [B, D], state), as `apply` with
    `is_training`; also needs only the encoder's parameters.
  """

  init: Callable[..., Any]
  apply: Callable[..., Any]
  apply_to_small: Callable[..., Any]
  encode: Callable[..., Any]
  encode_in_training: Callable[..., Any]


def build(
    *,
    encoder: str,
    encoder_options: Mapping[str, Any],
    projector: tuple[int, ...],
    predictor: tuple[int, ...],
    num_classes: int,
    batch_norm_decay: float,
    batch_norm_epsilon: float,
    compute_dtype: str,
    image_mean: tuple[float, float, float],
    image_std: tuple[float, float, float],
    normalization: str = 'batch',
    initial_scale: float = 1.,
    projector_output_norm: bool = False,
    predictor_output_norm: bool = False,
    small_predictor: tuple[int, ...] = (),
) -> Model:
  """Builds the networks.

  Args:
    encoder: a module of `encoders`, or a dotted path.
    encoder_options: keyword arguments for its `build`.
    projector: sizes of the projector's layers; (4096, 256) in the paper.
    predictor: sizes of the predictor's layers; the last must equal the projector's.
      If empty, the prediction is the projection (Table 5b).
    num_classes: classes of the online classifier; 0 leaves it out.
    batch_norm_decay: decay of the running statistics.
    batch_norm_epsilon: added to the variance.
    compute_dtype: 'float32', 'bfloat16' or 'float64'. With bfloat16, parameters, BatchNorm
      and outputs stay in float32.
    image_mean: per-channel mean, subtracted from images in [0, 1].
    image_std: per-channel standard deviation; the images are divided by it afterwards.
    normalization: normalisation of all layers, one of `normalization.NORMALIZATIONS`.
    initial_scale: multiplies Haiku's initial weights, whose standard deviation is
      1 / sqrt(inputs); sqrt(2) gives the initialisation of He et al. 2015.
    projector_output_norm: whether the projector ends in a normalisation without scale and offset.
    predictor_output_norm: whether the predictors do.
    small_predictor: layer sizes of a second predictor, for small views; if empty, small views
      use the same predictor.

  Raises:
    InputError: a predictor's output size differs from the projector's, the encoder does not
      have these options, or JAX has float64 disabled.
  """
  check(projector, predictor, small_predictor, predictor_output_norm, compute_dtype)
  batch_norm = norms.make(normalization, decay=batch_norm_decay, epsilon=batch_norm_epsilon)
  make_encoder = plugins.function('encoders', encoder, 'build', encoder_options)

  def embed(images, is_training):
    images = normalize(images, image_mean, image_std)
    return make_encoder(batch_norm=batch_norm, **encoder_options)(images, is_training)

  def forward(images, is_training, small=False):
    embedding = embed(images, is_training)
    head = functools.partial(_MLP, batch_norm=batch_norm)
    projection = head(projector, projector_output_norm, name='projector')(embedding, is_training)
    prediction = _predict(projection, is_training, functools.partial(
        head, output_norm=predictor_output_norm), predictor, small_predictor, small)
    return Outputs(embedding, projection, prediction, _classify(embedding, num_classes))

  whole, of_small, encoder_alone = (
      _at_precision(f, compute_dtype, normalization)
      for f in (forward, functools.partial(forward, small=True), embed))

  return Model(
      init=lambda key, images: _scaled(*whole.init(key, images, True), initial_scale),
      apply=whole.apply, apply_to_small=of_small.apply,
      encode=lambda params, state, images: encoder_alone.apply(params, state, images, False)[0],
      encode_in_training=lambda params, state, images: encoder_alone.apply(
          params, state, images, True))


def normalize(images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
  """(images - mean) / std per channel, [..., 3]."""
  return (images - jnp.array(mean, images.dtype)) / jnp.array(std, images.dtype)


def check(projector: tuple[int, ...], predictor: tuple[int, ...],
          small_predictor: tuple[int, ...], predictor_output_norm: bool,
          compute_dtype: str) -> None:
  """Raises InputError if arguments of `build` conflict, or are not supported here."""
  if compute_dtype == 'float64' and not jax.config.jax_enable_x64:
    raise InputError('model.compute_dtype float64 needs the environment variable '
                     'JAX_ENABLE_X64=1.')
  if predictor_output_norm and not predictor:
    raise InputError('model.predictor_output_norm is True without a predictor (model.predictor is '
                     '()); set it to False, or give the predictor layers.')
  for name, head in (('predictor', predictor), ('small_predictor', small_predictor)):
    if head and head[-1] != projector[-1]:
      raise InputError(f'model.{name} ends in {head[-1]} units and model.projector in '
                       f'{projector[-1]}; they must agree: one predicts the other.')


def _predict(projection, is_training, make_predictor, predictor, small_predictor, small: bool):
  """The prediction of a view; without a predictor it is the projection."""
  prediction = projection
  if predictor and not (small and small_predictor):
    prediction = make_predictor(predictor, name='predictor')(projection, is_training)
  # A pass of a large view creates all parameters.
  if small_predictor and (small or hk.running_init()):
    of_small = make_predictor(small_predictor, name='predictor_small')(projection, is_training)
    prediction = of_small if small else prediction
  return prediction


def _classify(embedding: jax.Array, num_classes: int) -> jax.Array | None:
  """Logits [B, C] of the online classifier, whose gradients do not reach the encoder."""
  if not num_classes:
    return None
  return hk.Linear(num_classes, name='classifier')(jax.lax.stop_gradient(embedding))


def _scaled(params: Params, state: Params, scale: float) -> tuple[Params, Params]:
  """Multiplies the weights `w` of all layers by `scale`; the state does not change."""
  return {module: {name: array if scale == 1 or name != 'w' else scale * array
                   for name, array in arrays.items()} for module, arrays in params.items()}, state


class _MLP(hk.Module):
  """Linear -> BatchNorm -> ReLU for each hidden layer, then Linear without bias.

  With `output_norm` a normalisation without scale and offset follows.
  """

  def __init__(self, sizes, output_norm, batch_norm, name):
    super().__init__(name=name)
    self._sizes, self._batch_norm, self._output_norm = sizes, batch_norm, output_norm

  def __call__(self, out, is_training):
    for size in self._sizes[:-1]:
      out = self._batch_norm()(hk.Linear(size)(out), is_training)
      out = jax.nn.relu(out)
    out = hk.Linear(self._sizes[-1], with_bias=False)(out)
    return self._batch_norm(affine=False)(out, is_training) if self._output_norm else out


def _at_precision(function, compute_dtype: str, normalization: str) -> hk.TransformedWithState:
  """Transforms f(images, is_training), computing in `compute_dtype` where that is safe."""
  compute = jnp.dtype(compute_dtype)
  full = jnp.promote_types(compute, jnp.float32)
  layers = jmp.Policy(param_dtype=full, compute_dtype=compute, output_dtype=compute)
  # Without its own policy BatchNorm would keep its running averages in
  # bfloat16, where an average with decay 0.9 stalls.
  statistics = jmp.Policy(param_dtype=full, compute_dtype=full, output_dtype=compute)

  def at_precision(images, is_training):
    chex.assert_rank(images, 4)
    push = hk.mixed_precision.push_policy
    # A policy applies to one class, not to its subclasses.
    with (push(hk.Conv2D, layers), push(Conv2D, layers), push(hk.Linear, layers),
          push(hk.BatchNorm, statistics), push(hk.GroupNorm, statistics),
          norms.standardized_weights(normalization)):
      outputs = function(images.astype(full), is_training)
    return jax.tree.map(lambda x: x.astype(full), outputs)

  return hk.without_apply_rng(hk.transform_with_state(at_precision))


def count_parameters(params: Params, prefix: str = '') -> int:
  """The number of parameters in the modules whose name starts with `prefix`."""
  return sum(array.size for module, arrays in params.items() if module.startswith(prefix)
             for array in arrays.values())


def encoder_only(params: Params) -> Params:
  """The encoder's parameters: all modules except the heads and the classifier."""
  heads = ('projector', 'predictor', 'predictor_small', 'classifier')
  return {module: arrays for module, arrays in params.items()
          if module.split('/')[0] not in heads}
