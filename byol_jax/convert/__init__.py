"""Exchange with other programs: DeepMind checkpoints, PyTorch weights and a serving export.

`pickles` reads untrusted files without executing them; `deepmind` converts the result to a
checkpoint of this package. `to_torch` writes the encoder under torchvision's names,
`from_torch` reads such files. `export` writes the encoder as one function that does not
need the code of this package.
"""
