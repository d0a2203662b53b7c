"""A few steps of an optimizer on made-up gradients, with optax and in NumPy."""

import jax
import numpy as np
import optax

SHAPES = {
    'res_net50/~/initial_conv': dict(w=(3, 3, 3, 4)),
    'res_net50/~/initial_batchnorm': dict(scale=(4,), offset=(4,)),
    'projector/linear': dict(w=(4, 5), b=(5,)),
    'projector/batch_norm': dict(scale=(5,), offset=(5,)),
    'projector/linear_1': dict(w=(5, 2)),
    'predictor/batch_norm_1': dict(scale=(2,), offset=(2,)),
    'classifier': dict(w=(4, 3), b=(3,)),
}
ADAPTED = {('res_net50/~/initial_conv', 'w'), ('projector/linear', 'w'),
           ('projector/linear_1', 'w'), ('classifier', 'w')}


def draw(seed):
  """Parameters (seed 0), or the gradients of step `seed`."""
  random = np.random.default_rng(seed)
  return {module: {name: random.normal(size=shape).astype(np.float32)
                   for name, shape in shapes.items()} for module, shapes in SHAPES.items()}


def run(optimizer, learning_rates, apply):
  """The parameters after a step with each learning rate, which the update gets as well."""
  params = draw(0)
  opt_state = optimizer.init(params)
  update = jax.jit(optax.with_extra_args_support(optimizer).update)
  for i, learning_rate in enumerate(learning_rates):
    updates, opt_state = update(draw(i + 1), opt_state, params, learning_rate=learning_rate)
    params = apply(params, updates, learning_rate)
  return params


def numpy_run(momentum_of, learning_rates):
  """The same in float64; `momentum_of`: (p, g, momentum, learning_rate, is_weight) -> momentum."""
  params = {(m, n): v.astype(np.float64) for m, vs in draw(0).items() for n, v in vs.items()}
  momentum = {key: 0. for key in params}
  for i, learning_rate in enumerate(learning_rates):
    for (module, name), p in params.items():
      gradient = draw(i + 1)[module][name].astype(np.float64)
      momentum[module, name] = momentum_of(p, gradient, momentum[module, name], learning_rate,
                                           (module, name) in ADAPTED)
      params[module, name] = p - learning_rate * momentum[module, name]
  return {module: {name: params[module, name] for name in names}
          for module, names in SHAPES.items()}
