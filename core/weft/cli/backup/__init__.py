"""Backups of a mesh: its Redis, its PostgreSQL, its keys, and a list of them with their sums."""

from weft.cli.backup.making import back_up
from weft.cli.backup.manifest import Manifest
from weft.cli.backup.restoring import restore

__all__ = ["Manifest", "back_up", "restore"]
