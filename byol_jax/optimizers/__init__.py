"""Optimizers: one file each, found by name.

`build(**options)` returns an optax transformation that ends before the learning rate, which
`train_step.apply_momentum` applies.
"""
