"""Ways to choose one of several endpoints. Each passes over those that take no calls now."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from weft.gateway.dataplane.connection import Connection
from weft.gateway.dataplane.endpoint import Endpoint
from weft.gateway.dataplane.traffic import Balancing

_POINTS, _LEAST = 64, 4  # of an endpoint on the ring
_RING = 4_096  # points of all, beyond which each has fewer: a ring is made within milliseconds
_WEIGHED = 1.0  # seconds for which weights are good


class Chooser(Protocol):
    """Chooses among endpoints."""

    endpoints: Sequence[Endpoint]

    def pick(self, key: int | None) -> Connection | None:
        """A connection that takes calls, one that begins them at once if there is any.

        Args:
            key: of the call; None: it has none.
        """


def chooser(
    balancing: Balancing, endpoints: Sequence[Endpoint], clock: Callable[[], float]
) -> Chooser:
    """One that chooses in a way."""
    if balancing is Balancing.RING_HASH:
        return Ring(endpoints)
    if balancing is Balancing.WEIGHTED:
        return Weighted(endpoints, clock)
    return Turns(endpoints)


class Turns:
    """In turn (round robin)."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints
        # Many gateways do not begin with the same.
        self._turn = random.randrange(1 << 16)  # noqa: S311 no secret

    def pick(self, key: int | None = None) -> Connection | None:
        """See Chooser."""
        del key
        busy = None
        for _ in self.endpoints:
            self._turn += 1
            endpoint = self.endpoints[self._turn % len(self.endpoints)]
            connection = endpoint.connection
            if connection is not None and connection.usable and not endpoint.ejected:
                if connection.has_room:
                    return connection
                busy = busy or connection
        return busy


class Ring:
    """By the key of a call: of the endpoints, each on many points of a ring, the first behind it (ketama)."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints
        each = max(_LEAST, min(_POINTS, _RING // max(1, len(endpoints))))
        points = sorted(
            (hashed(f"{endpoint.address}_{number}"), endpoint.address, endpoint)
            for endpoint in endpoints
            for number in range(each)
        )
        self._points = [point for point, _, _ in points]
        self._at = [endpoint for _, _, endpoint in points]
        self._turns = Turns(endpoints)

    def pick(self, key: int | None) -> Connection | None:
        """See Chooser."""
        if key is None:
            return self._turns.pick()
        begin = bisect.bisect(self._points, key)
        for position in range(begin, begin + len(self._at)):
            endpoint = self._at[position % len(self._at)]
            connection = endpoint.connection
            if connection is not None and connection.usable and not endpoint.ejected:
                return connection  # whatever it has to do: calls stay together
        return None


class Weighted:
    """By the weights that reports give; while fewer than two endpoints have one, in turn (gRFC A58)."""

    def __init__(self, endpoints: Sequence[Endpoint], clock: Callable[[], float]) -> None:
        self.endpoints = endpoints
        self._clock = clock
        self._turns = Turns(endpoints)
        self._until = 0.0
        self._bounds: list[float] = []

    def pick(self, key: int | None) -> Connection | None:
        """See Chooser."""
        del key
        now = self._clock()
        if now >= self._until:
            self._until = now + _WEIGHED
            self._bounds = list(_bounds(endpoint.tally.weight(now) for endpoint in self.endpoints))
        if self._bounds:
            at = random.random() * self._bounds[-1]  # noqa: S311 no secret
            last = len(self.endpoints) - 1
            endpoint = self.endpoints[min(bisect.bisect(self._bounds, at), last)]
            connection = endpoint.connection
            if connection is not None and connection.usable and not endpoint.ejected:
                return connection
        return self._turns.pick()


def _bounds(weights: Iterable[float]) -> Iterable[float]:
    found = list(weights)
    known = [weight for weight in found if weight]
    if len(known) < 2:  # noqa: PLR2004 one weight says nothing
        return ()
    mean = sum(known) / len(known)
    return itertools.accumulate(weight or mean for weight in found)


def hashed(text: str | bytes) -> int:
    """A number of 64 bits."""
    octets = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "big")
