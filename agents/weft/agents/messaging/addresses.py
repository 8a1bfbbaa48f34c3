"""Which broker to talk to: any of them will do, so whoever fails is followed by the next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from weft import rpc

if TYPE_CHECKING:
    from weft.mtls import Credentials

FIRST_PAUSE, LAST_PAUSE = 0.05, 2.0  # seconds between tries


class Addresses:
    """The brokers of a mesh.

    Args:
        brokers: "host:port" of each, joined by commas, or a sequence of them.
        mtls: what is shown to them; None: connections are not encrypted.
    """

    def __init__(self, brokers: str | Sequence[str], mtls: Credentials | None = None) -> None:
        self._mtls = mtls
        given = brokers.split(",") if isinstance(brokers, str) else brokers
        self._all = [address.strip() for address in given if address.strip()]
        if not self._all:
            raise ValueError("name at least one broker, such as 127.0.0.1:7072")
        # Clients spread themselves.
        self._next = random.randrange(len(self._all))  # noqa: S311 no secret
        self._pause = FIRST_PAUSE

    @property
    def current(self) -> str:
        """The broker whose turn it is."""
        return self._all[self._next]

    def channel(self) -> rpc.Channel:
        """A channel to the broker whose turn it is."""
        return rpc.Channel(self.current, measured=False, mtls=self._mtls, part="broker")

    def failed(self, address: str = "") -> float:
        """Moves on to the next broker; seconds to wait before it is tried.

        Args:
            address: who failed; by default the one whose turn it is. If another's turn has come, nothing moves.
        """
        pause = random.uniform(0.5, 1.0) * self._pause  # noqa: S311 jitter
        if not address or address == self.current:
            self._next = (self._next + 1) % len(self._all)
            self._pause = min(LAST_PAUSE, self._pause * 2)
        return pause

    def worked(self) -> None:
        """The broker answers: the next failure is a first one again."""
        self._pause = FIRST_PAUSE
