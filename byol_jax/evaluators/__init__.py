"""Evaluators: one file each, found by name. Their contract is in `evaluation/contract.py`."""
