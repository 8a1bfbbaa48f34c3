"""One module per command; each defines a click command of its own name."""
