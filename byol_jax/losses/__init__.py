"""Loss functions beyond the paper's own, which is `train_step.loss_fn`."""
