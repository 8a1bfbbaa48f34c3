"""Where the servers of a data folder answer."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from weft.embedded import _lock
from weft.embedded._files import replace_file
from weft.embedded._folders import Folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """URLs of a running Redis-protocol server (for redis-py) and PostgreSQL (for asyncpg or libpq)."""

    redis_url: str
    database_url: str


def endpoints(data: Path) -> Endpoints | None:
    """The endpoints of the launcher that holds `data` now.

    None if there is none, if it is not ready yet, or if it is not this user's.
    """
    folders = Folders.of(data)
    if not os.access(folders.lock, os.R_OK):
        return None
    launcher = _lock.holder(folders.lock)
    if launcher is None:
        return None
    try:
        content = json.loads(folders.endpoints.read_text())
    except FileNotFoundError:
        return None
    if content["launcher"] != launcher:  # left behind by a launcher that was killed
        return None
    return Endpoints(redis_url=content["redis"], database_url=content["postgres"])


def publish(folders: Folders, found: Endpoints, launcher: int) -> None:
    """Tells others where the servers are; the last act of a start."""
    content = {
        "launcher": launcher,
        "redis": found.redis_url,
        "postgres": found.database_url,
    }
    replace_file(folders.endpoints, json.dumps(content) + "\n")
