"""Work over many devices and many processes."""
