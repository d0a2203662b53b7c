"""Encoders: one file per encoder, all with the same contract.

An encoder is a module with a function `build(*, batch_norm, **options)`. It is
called inside `hk.transform_with_state` and returns a Haiku module whose call
`encoder(images, is_training)` maps normalised images [B, H, W, 3] to embeddings
[B, D]. `batch_norm(name, **kwargs)` makes its normalisation layers, so that their
decay, epsilon and device axis are set in one place. Options come from
`config.model.encoder_options`; the module declares their allowed values in `RANGES`
(`plugins.function`).
"""
