"""Objectives: one file each, one contract.

An objective is a module with a function `loss(online, target) -> [B]`, where both
arguments are pairs of `model.Outputs`, one per view; it returns the loss of every
image in at least float32. Gradients are taken with respect to the online
parameters only.
"""
