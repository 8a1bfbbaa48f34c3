"""Who is woken when something about runs changes, in whichever process it was changed."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

CHANNEL = "orchestrator_runs"
_MOST = 1 << 20  # bytes of events that are kept for a watcher

B = TypeVar("B", bound="Bell")


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


class Feed(Bell):
    """What a watcher waits for: it rings when a run has new events, and brings those that were stored from here."""

    def __init__(self) -> None:
        super().__init__()
        self._events: dict[int, bytes] = {}
        self._size = 0
        self.asked = -math.inf
        """When those who hold the run elsewhere were asked to say what they store, by the clock of the loop."""

    def bring(self, first: int, events: Sequence[bytes]) -> None:
        """Events that were stored, numbered from `first`."""
        self._events.update(enumerate(events, first))
        self._size += sum(map(len, events))
        if self._size > _MOST:
            self._keep({})  # they are in the log
        self.ring()

    def behind(self, number: int) -> Sequence[bytes]:
        """The events right behind a number, as far as they are known; the log may have more."""
        found: list[bytes] = []
        while (event := self._events.get(number + len(found) + 1)) is not None:
            found.append(event)
        self._keep({n: each for n, each in self._events.items() if n > number + len(found)})
        return found

    def _keep(self, events: dict[int, bytes]) -> None:
        self._events, self._size = events, sum(map(len, events.values()))


Heard = Callable[[str | None], None]
"""Called with the id of an approval that changed; None: any may have."""


class Bells:
    """Bells of this process. `hear` takes what PostgreSQL says on CHANNEL."""

    def __init__(self) -> None:
        self.due = Bell()
        self.webhook = Bell()
        self._held: dict[int, Callable[[], None]] = {}
        self._watching: dict[int, set[Feed]] = {}
        self._waiting: dict[int, set[Bell]] = {}
        self._approvals: set[Heard] = set()

    def hear(self, said: str | None) -> None:
        """Rings; None: anything may have been missed."""
        if said is None:
            self._ring_all()
            return
        what, _, about = said.partition(":")
        if what == "due":
            self.due.ring()
        elif what == "wake":
            if wake := self._held.get(int(about)):
                wake()
        elif what == "events":
            self.changed(int(about))
        elif what == "ended":
            self.ended(int(about))
        elif what == "approval":
            for heard in self._approvals:
                heard(about)
        elif what == "webhook":
            self.webhook.ring()

    def changed(self, run: int, first: int = 0, events: Sequence[bytes] = ()) -> None:
        """Wakes those who watch a run here, with events that were stored, numbered from `first`."""
        for feed in self._watching.get(run, ()):
            feed.bring(first, events)

    def ended(self, run: int, first: int = 0, events: Sequence[bytes] = ()) -> None:
        """Wakes those who watch a run here, as `changed` does, or wait for its end."""
        self.changed(run, first, events)
        for bell in self._waiting.get(run, ()):
            bell.ring()

    def hold(self, run: int, wake: Callable[[], None]) -> None:
        """Calls `wake` when something happens to a run that is held here."""
        self._held[run] = wake

    def let_go(self, run: int, wake: Callable[[], None]) -> None:
        """Takes that back: whoever watches has to hear of it from elsewhere."""
        if self._held.get(run) == wake:
            del self._held[run]
            self.changed(run)

    def held(self, run: int) -> bool:
        """Whether a run is held here, so that all of its events are stored from here."""
        return run in self._held

    @contextlib.contextmanager
    def watching(self, run: int) -> Iterator[Feed]:
        """A feed of the events of a run."""
        with _ringing(self._watching, run, Feed()) as feed:
            yield feed

    @contextlib.contextmanager
    def waiting(self, run: int) -> Iterator[Bell]:
        """A bell that rings when a run ends."""
        with _ringing(self._waiting, run, Bell()) as bell:
            yield bell

    @contextlib.contextmanager
    def approvals(self, heard: Heard) -> Iterator[None]:
        """Has `heard` called for each approval that changes."""
        self._approvals.add(heard)
        try:
            yield
        finally:
            self._approvals.discard(heard)

    def _ring_all(self) -> None:
        self.due.ring()
        self.webhook.ring()
        for wake in list(self._held.values()):
            wake()
        for feeds in self._watching.values():
            for feed in feeds:
                feed.ring()
        for bells in self._waiting.values():
            for bell in bells:
                bell.ring()
        for heard in list(self._approvals):
            heard(None)


@contextlib.contextmanager
def _ringing(bells: dict[int, set[B]], run: int, bell: B) -> Iterator[B]:
    bells.setdefault(run, set()).add(bell)
    try:
        yield bell
    finally:
        bells[run].discard(bell)
        if not bells[run]:
            del bells[run]
