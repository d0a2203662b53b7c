"""Data sets: one file each, found by name. Their contract is `input_pipeline/records.py`."""
