"""Tells listeners what changed, however fast it changes: each knows what it has not told yet, no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.shelf import Shelf


class Listener:
    """Someone who is told of changes.

    Args:
        lists: the lists it cares about.
        uris: the resources it cares about; asked again at each change.
    """

    def __init__(self, lists: frozenset[str], uris: Callable[[], frozenset[str]]) -> None:
        self._lists = lists
        self._uris = uris
        self._changed_lists: set[str] = set()
        self._changed_uris: set[str] = set()
        self._news = asyncio.Event()
        self.closed = False

    def tell(self, lists: set[str], agents: set[str], now: Shelf, before: Shelf) -> None:
        """Something changed."""
        self._changed_lists |= lists & self._lists
        for uri in self._uris():
            if (now.agent_of(uri) or before.agent_of(uri)) in agents:
                self._changed_uris.add(uri)
        if self._changed_lists or self._changed_uris:
            self._news.set()

    def close(self) -> None:
        """There will be no more."""
        self.closed = True
        self._news.set()

    async def wait(self) -> None:
        """Returns when there is something to take, or nothing will come any more."""
        await self._news.wait()

    def take(self) -> list[tuple[str, protocol.Json]]:
        """The notifications that are due: methods and parameters."""
        if not self.closed:
            self._news.clear()
        due: list[tuple[str, protocol.Json]] = [
            (f"notifications/{kind}/list_changed", {}) for kind in sorted(self._changed_lists)
        ]
        due += [("notifications/resources/updated", {"uri": u}) for u in sorted(self._changed_uris)]
        self._changed_lists.clear()
        self._changed_uris.clear()
        return due


class Changes:
    """All listeners."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()
        self._closed = False

    @contextlib.contextmanager
    def listening(
        self, lists: frozenset[str], uris: Callable[[], frozenset[str]]
    ) -> Iterator[Listener]:
        """A listener for as long as the block runs."""
        listener = Listener(lists, uris)
        self._listeners.add(listener)
        if self._closed:
            listener.close()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def publish(self, now: Shelf, before: Shelf) -> None:
        """Compares two shelves, if there is someone to tell."""
        if not self._listeners:
            return
        lists, agents = now.changed_lists(before), now.changed_agents(before)
        for listener in self._listeners:
            listener.tell(lists, agents, now, before)

    def close(self) -> None:
        """Ends every listener."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
