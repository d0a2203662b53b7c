"""The augmentation policy on the device: crops, colour, blur and solarization."""
