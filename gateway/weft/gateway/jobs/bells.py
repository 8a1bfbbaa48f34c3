"""Who is woken when something about jobs changes, in whichever process it was changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

CHANNEL = "gateway_jobs"
_CHANGED, _CANCEL = "changed:", "cancel:"


class Bell:
    """Something to wait for. What rings while nobody waits is not lost."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes whoever waits."""
        self._rung.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Waits for a ring, at most `seconds`; whether there was one."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


class Bells:
    """Bells of this process. `hear` takes what PostgreSQL says on CHANNEL."""

    def __init__(self) -> None:
        self.queued = Bell()
        self.webhook = Bell()
        self._cancelling: set[str] = set()
        self.cancel = Bell()
        self._watching: dict[str, set[Bell]] = {}

    def hear(self, said: str | None) -> None:
        """Rings; None: anything may have been missed."""
        if said is None:
            self._ring_all()
        elif said.startswith(_CHANGED):
            for bell in self._watching.get(said.removeprefix(_CHANGED), ()):
                bell.ring()
        elif said.startswith(_CANCEL):
            self._cancelling.add(said.removeprefix(_CANCEL))
            self.cancel.ring()
        elif said == "queued":
            self.queued.ring()
        elif said == "webhook":
            self.webhook.ring()

    def cancelled(self) -> set[str]:
        """The jobs that are to be cancelled, since it was last asked."""
        found, self._cancelling = self._cancelling, set()
        return found

    @contextlib.contextmanager
    def watching(self, job: str) -> Iterator[Bell]:
        """A bell that rings when a job changes."""
        bell = Bell()
        self._watching.setdefault(job, set()).add(bell)
        try:
            yield bell
        finally:
            left = self._watching[job]
            left.discard(bell)
            if not left:
                del self._watching[job]

    def _ring_all(self) -> None:
        self.queued.ring()
        self.webhook.ring()
        for bells in self._watching.values():
            for bell in bells:
                bell.ring()
