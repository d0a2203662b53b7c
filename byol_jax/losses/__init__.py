"""Loss functions beyond the paper's own, which is `train_step.loss_fn`.

A loss function makes one number of a batch: it runs the networks on the views and calls the
objective (`objectives/`), which compares projections.
"""
