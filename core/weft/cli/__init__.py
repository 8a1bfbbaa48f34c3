"""The command `weft`: the composition root, the only place that imports every part."""

from weft.cli.app import main

__all__ = ["main"]
