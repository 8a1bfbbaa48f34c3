"""What became of messages: the archive in PostgreSQL, history and replay."""

from weft.broker.archive.archiver import Archiver
from weft.broker.archive.history import History

__all__ = ["Archiver", "History"]
