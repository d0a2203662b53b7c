"""Loss functions beyond the paper's."""
