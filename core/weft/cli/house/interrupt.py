"""Ctrl-C for a process that owns others: the first stops in order, the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = 130  # what shells report of a command ended by Ctrl-C


class Interrupt:
    """Within the block SIGINT and SIGTERM cancel the task that entered it; again, they end the process.

    Args:
        kill: called before the process ends at once.
    """

    def __init__(self, kill: Callable[[], None]) -> None:
        self.asked = False
        self._kill = kill

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _signalled(self) -> None:
        if self.asked:
            self._kill()
            os._exit(_INTERRUPTED)
        self.asked = True
        assert self._task is not None
        self._task.cancel()
