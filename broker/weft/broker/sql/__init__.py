"""SQL of the broker."""
