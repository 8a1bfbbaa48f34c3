"""Who presents an API key: verification with a short memory, for the request path.

What the database said about a key is believed for one second. So a revocation is seen everywhere within a
second with nothing to lose on the way (a LISTEN connection that dies in silence would keep a revoked key
alive), at the price of one primary-key read a second per active key.

While the database cannot be reached, what it last said stands in for up to `outage`: nothing can be revoked
meanwhile either, since that is where revocations are written.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from weft import rpc
from weft.gateway.guards import keys
from weft.gateway.guards.key_store import StoredKey
from weft.v1.identity_pb2 import Identity

_STRIPES = 16  # look-ups at a time: a flood of invented ids cannot take the whole connection pool
_NO_HASH = bytes(32)


class Keys(Protocol):
    """Where keys are found; KeyStore is one."""

    async def find(self, key_id: str) -> StoredKey | None:
        """The key of this id; None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What the database said of an id; `read_at` is in seconds of the monotonic clock."""

    stored: StoredKey | None
    identity: Identity
    read_at: float


class KeyCheck:
    """Turns a presented key into an identity.

    Args:
        ttl: how long an answer of the database is believed.
        outage: how long it is believed while the database cannot be reached.
        patience: how long one look-up may take.
        capacity: valid keys remembered, and as many unknown ids apart from them, so that a flood of
            invented ids pushes out no valid key.
        clock: seconds, monotonic.
        now: the time of day, with a time zone.
    """

    def __init__(
        self,
        store: Keys,
        *,
        ttl: timedelta = timedelta(seconds=1),
        outage: timedelta = timedelta(seconds=30),
        patience: timedelta = timedelta(seconds=2),
        capacity: int = 4096,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._ttl = ttl.total_seconds()
        self._outage = outage.total_seconds()
        self._patience = patience.total_seconds()
        self._capacity = capacity
        self._clock = clock
        self._now = now
        self._known: OrderedDict[str, _Answer] = OrderedDict()
        self._unknown: OrderedDict[str, _Answer] = OrderedDict()
        # Until then the database is not asked: those who queued behind a look-up that failed need not wait.
        self._down_until = 0.0
        self._looking = tuple(asyncio.Lock() for _ in range(_STRIPES))

    async def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Identity:
        """The caller behind these request headers (ASGI: lower-case names). Do not change the answer.

        Raises:
            KeyMissing, KeyMalformed, KeyUnknown, KeyRevoked, KeyExpired: see `keys`.
            rpc.Unavailable: the database cannot be reached and the key is not remembered.
        """
        identity, _ = await self.verify(keys.presented(headers))
        return identity

    async def verify(self, presented: keys.Presented) -> tuple[Identity, float]:
        """The caller that a key stands for, and until when that is certain, in seconds of the monotonic clock.

        Raises:
            KeyUnknown, KeyRevoked, KeyExpired, rpc.Unavailable: as `identify` does.
        """
        answer = self._remembered(presented.id)
        if answer is None:
            # One look-up per id at a time: whoever waited finds the answer of the one before.
            async with self._looking[hash(presented.id) % _STRIPES]:
                answer = self._remembered(presented.id) or await self._look_up(presented.id)
        left = self._judge(presented, answer)
        until = answer.read_at + self._ttl
        return answer.identity, until if left is None else min(until, self._clock() + left)

    def _remembered(self, key_id: str) -> _Answer | None:
        answer = self._known.get(key_id) or self._unknown.get(key_id)
        if answer is None or self._clock() - answer.read_at >= self._ttl:
            return None
        return answer

    async def _look_up(self, key_id: str) -> _Answer:
        began = self._clock()
        if began < self._down_until:
            return self._without_database(key_id)
        try:
            async with asyncio.timeout(self._patience):
                stored = await self._store.find(key_id)
        except rpc.DeadlineExceeded as hurried:  # this caller's own; says nothing of the database
            return self._without_database(key_id, hurried)
        except (rpc.Unavailable, TimeoutError) as unreachable:
            self._down_until = self._clock() + self._ttl
            return self._without_database(key_id, unreachable)
        self._known.pop(key_id, None)
        self._unknown.pop(key_id, None)
        answer = _Answer(stored=stored, identity=_identity(stored), read_at=began)
        memory = self._unknown if stored is None else self._known
        if len(memory) >= self._capacity:
            memory.popitem(last=False)
        memory[key_id] = answer
        return answer

    def _without_database(self, key_id: str, why: Exception | None = None) -> _Answer:
        answer = self._known.get(key_id)
        if answer is None or self._clock() - answer.read_at >= self._outage:
            raise rpc.Unavailable(
                "API keys cannot be verified at the moment; try again.",
                reason="KEYS_UNAVAILABLE",
                retry_after=timedelta(seconds=1),
            ) from why
        return answer

    def _judge(self, presented: keys.Presented, answer: _Answer) -> float | None:
        """Seconds until the key expires; None: it never does."""
        stored = answer.stored
        expected = _NO_HASH if stored is None else stored.secret_hash
        if not hmac.compare_digest(expected, presented.secret_hash) or stored is None:
            raise keys.KeyUnknown
        if stored.key.revoked_at is not None:
            raise keys.KeyRevoked
        if stored.key.expires_at is None:
            return None
        left = (stored.key.expires_at - self._now()).total_seconds()
        if left <= 0:
            raise keys.KeyExpired
        return left


def _identity(stored: StoredKey | None) -> Identity:
    if stored is None:
        return Identity()
    key = stored.key
    return Identity(
        subject=f"key:{key.id}", display_name=key.name, scopes=key.scopes, tenant=key.tenant
    )
