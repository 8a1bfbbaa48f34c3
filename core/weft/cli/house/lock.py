"""One `weft up` per data folder. The lock is the kernel's, so it is given back however its holder ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from weft.cli.failures import Failure


class HouseLock:
    """Held for the life of a supervisor. The file names its process and its gateway.

    Raises:
        Failure: another supervisor holds the folder, or it cannot be used.
    """

    def __init__(self, data: Path) -> None:
        self._path = data / "up.lock"
        self._fd = -1

    def __enter__(self) -> Self:
        try:
            # Root's database runs under another account, which must be able to pass through.
            self._path.parent.mkdir(
                mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True
            )
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failed:
            raise Failure(
                f"The data folder {self._path.parent} cannot be used: {failed.strerror}. "
                "Name one of your own with --data or WEFT_DATA."
            ) from failed
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = self._path.read_text().strip() or "another process"
            os.close(self._fd)
            raise Failure(
                f"Weft runs on {self._path.parent} already ({held}). "
                "Use that one, stop it, or name another folder with --data or WEFT_DATA."
            ) from None
        self.describe("")
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def describe(self, gateway: str) -> None:
        """Says in the file who holds the lock."""
        text = f"process {os.getpid()}" + (f", gateway {gateway}" if gateway else "")
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)
