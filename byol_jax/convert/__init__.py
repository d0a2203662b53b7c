"""Exchange with other programs: DeepMind's checkpoints, PyTorch's weights, a serving export.

`pickles` reads files of strangers and executes nothing of them; `deepmind` makes a
checkpoint of ours of what it reads. `to_torch` writes the encoder under torchvision's
names, `from_torch` reads such files. `export` writes the encoder as one function that
needs no code of this package.
"""
