"""What evaluators share: their contract, features, grids, fine-tuning, results."""
