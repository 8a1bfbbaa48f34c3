"""SQL of handling once."""
