"""The layout of a data folder.

data/               0700; 0711 for root, whose PostgreSQL runs under another account
  lock              held by the launcher for its whole life
  endpoints.json    written last, removed first
  redis/            append-only file, SERVER.json
  pg/               SERVER.json, and PGDATA in a folder named after the major version
  run/              sockets; elsewhere when the path is unfit for a unix socket
  log/              redis.log, postgres.log
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from weft.embedded._errors import FolderUnusable

_SOCKET_LIMIT = 103  # bytes: sun_path is 104 with its NUL on macOS, 108 on Linux
_LONGEST_SOCKET = "pg/.s.PGSQL.5432"
# A comma parts two hosts in a libpq URL and in PostgreSQL's own setting; the rest is caution.
_PLAIN_PATH = re.compile(r"[\w./+@-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Paths of one data folder."""

    data: Path

    @classmethod
    def of(cls, data: Path) -> Self:
        """The layout below `data`, which need not exist."""
        return cls(data=Path(data).resolve())

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.data / "lock"

    @property
    def endpoints(self) -> Path:
        """Where a running launcher says how to reach its servers."""
        return self.data / "endpoints.json"

    @property
    def redis(self) -> Path:
        """Data of the Redis-protocol server."""
        return self.data / "redis"

    @property
    def postgres(self) -> Path:
        """The folder of PostgreSQL's data folders."""
        return self.data / "pg"

    @property
    def log(self) -> Path:
        """Logs of both."""
        return self.data / "log"

    def create(self) -> None:
        """Makes the folders. Raises FolderUnusable."""
        mode = _mode()
        try:
            self.data.mkdir(mode=mode, parents=True, exist_ok=True)
            if os.geteuid() == 0:
                # It may exist, made by hand: open the way through it, its content stays closed.
                self.data.chmod(stat.S_IMODE(self.data.stat().st_mode) | 0o011)
            for folder in (self.redis, self.log):
                folder.mkdir(mode=0o700, exist_ok=True)
            self.postgres.mkdir(mode=mode, exist_ok=True)
        except OSError as failed:
            raise self._unusable(failed.strerror) from failed
        for path in (self.data, self.lock, self.redis, self.log, self.postgres):
            if path.exists() and not os.access(path, os.R_OK | os.W_OK):
                raise self._unusable(f"{path} belongs to somebody else")

    def _unusable(self, why: str | None) -> FolderUnusable:
        return FolderUnusable(
            f"The data folder {self.data} cannot be used: {why}. "
            "Set WEFT_DATA to a folder of your own."
        )

    def sockets(self) -> Path:
        """Makes and returns the folder for sockets, which none but this user can write to.

        It is `run` in the data folder if that path fits into a socket's address, else in the
        user's runtime folder (what XDG_RUNTIME_DIR names) or /tmp. Raises FolderUnusable.
        """
        run = self.data / "run"
        if not _fits_socket(run):
            run = self._elsewhere()
        run.mkdir(mode=_mode(), exist_ok=True)
        found = run.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise FolderUnusable(
                f"{run} is not a folder that belongs to this user alone. "
                "Remove it, or set WEFT_DATA to a shorter path."
            )
        return run

    def tidy(self) -> None:
        """Removes the folder for sockets if it is outside of the data folder."""
        if not _fits_socket(self.data / "run"):
            shutil.rmtree(self._elsewhere(), ignore_errors=True)

    def _elsewhere(self) -> Path:
        uid = os.geteuid()
        name = f"weft-{uid}-{hashlib.sha256(bytes(self.data)).hexdigest()[:12]}"
        runtime = Path(f"/run/user/{uid}")
        # Not for root: its PostgreSQL runs under another account, which cannot go in there.
        if uid != 0 and runtime.is_dir() and runtime.stat().st_uid == uid:
            return runtime / name
        return Path("/tmp") / name  # noqa: S108 - made 0700 and its owner is checked


def _mode() -> int:
    return 0o711 if os.geteuid() == 0 else 0o700


def _fits_socket(run: Path) -> bool:
    plain = _PLAIN_PATH.fullmatch(str(run)) is not None
    return plain and len(bytes(run / _LONGEST_SOCKET)) <= _SOCKET_LIMIT
