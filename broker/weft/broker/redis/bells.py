"""Doorbells: a connection on which a server tells of changes (sharded publish/subscribe, RESP3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from weft.broker.redis.connection import Connection
from weft.broker.redis.errors import Redirected
from weft.broker.redis.slots import slot_of
from weft.broker.redis.url import Address

_LOG = logging.getLogger("weft.broker")


class BellConnection(Connection):
    """The push connection to one server.

    Args:
        on_bell: called with channel and payload.
        on_moved: called when a channel is no longer at this server.
    """

    def __init__(
        self,
        address: Address,
        silence: float,
        on_bell: Callable[[bytes, bytes], None],
        on_moved: Callable[[], None],
    ) -> None:
        super().__init__(address, silence)
        self._on_bell = on_bell
        self._on_moved = on_moved
        self._channels: frozenset[str] = frozenset()

    async def subscribe(self, channels: Iterable[str], *, together: bool) -> bool:
        """Listens to exactly these channels; returns when the server does, and whether any was new.

        Args:
            channels: of this server.
            together: in one command, which a cluster takes for channels of one slot only.
        """
        wanted = frozenset(channels)
        gone, new = sorted(self._channels - wanted), sorted(wanted - self._channels)
        self._channels = wanted
        for command, names in ((b"SUNSUBSCRIBE", gone), (b"SSUBSCRIBE", new)):
            if names and together:
                self.post(command, *names)
            elif names:
                for name in names:
                    self.post(command, name)
        if gone or new:
            await self.send(b"PING")
        return bool(new)

    def pushed(self, push: list[Any]) -> None:
        """Hands a bell over; a listener that fails does not end the connection."""
        kind = push[0]
        if kind == b"smessage":
            try:
                self._on_bell(push[1], push[2])
            except Exception:  # noqa: BLE001 it is logged, and no fault of the connection
                _LOG.exception("A listener to bells failed")
        elif kind == b"sunsubscribe" and push[1] and push[1].decode() in self._channels:
            self._forget({push[1].decode()})

    def refused(self, error: Exception) -> None:
        """A subscription has no reply but an error, and that names its slot only."""
        if not isinstance(error, Redirected):
            super().refused(error)
        else:
            self._forget({name for name in self._channels if slot_of(name) == error.slot})

    def _forget(self, channels: AbstractSet[str]) -> None:
        """They are not at this server any more."""
        self._channels -= channels
        self._on_moved()
