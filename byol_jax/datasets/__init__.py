"""Data sets: one file each, found by name; nothing is registered.

Their contract is in `input_pipeline/records.py`.
"""
