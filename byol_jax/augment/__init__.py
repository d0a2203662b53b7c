"""The view policy on the device: crops, colour, blur, solarization."""
