"""Evaluators: one file each, found by name. Their contract is `evaluation/contract.py`."""
