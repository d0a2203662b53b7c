"""Objectives: one file per objective, all with the same contract.

An objective is a module with a function `loss(online, target, *, ...) -> [B]`, where both
arguments are pairs of `model.Outputs`, one per view, and the keyword arguments are the config's
`train.objective_options`; it returns the loss of every image in at least float32. It is called
inside the step, on each device with its share of the batch, and may use the other shares
through `parallel`. Gradients are taken with respect to the online parameters only. The module
declares the allowed values of its options in `RANGES` (`plugins.function`).
"""
