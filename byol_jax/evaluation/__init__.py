"""Code that evaluators share: their contract, features, grids, fine-tuning, results."""
