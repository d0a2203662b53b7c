"""Objectives: one file each, one contract.

An objective is a module with a function `loss(online, target, *, ...) -> [B]`, where both
arguments are pairs of `model.Outputs`, one per view, and the keyword arguments are the config's
`train.objective_options`; it returns the loss of every image in at least float32. It is called
inside the step, on each device with its share of the batch, and may look at the other shares
through `parallel`. Gradients are taken with respect to the online parameters only. What the
options can be, the module says in `RANGES` (`plugins.function`).
"""
