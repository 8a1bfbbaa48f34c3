"""People decide whether runs go on: once, on exactly what they saw."""
