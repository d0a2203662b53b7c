"""The input pipeline from files to batches on the devices: records, splits, order, decoding."""
