"""How far long work is: a line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self

from weft.cli import output

if TYPE_CHECKING:
    from rich.status import Status


class Counting:
    """Counts what is done. `done`: what is said of it, such as "published"."""

    def __init__(self, done: str) -> None:
        self._done = done
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._status = output.console(sys.stderr).status("").__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, count: int, more: str = "") -> None:
        """Says how many are done."""
        if self._status is not None:
            self._status.update(f"{count:,} {self._done}{more}")
