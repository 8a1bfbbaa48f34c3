"""What is to be told and did not arrive yet, in memory: an alert that still fires is told of again after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta

from weft.webhooks import Delivery, Sender, Told, headers

log = logging.getLogger("weft.alerts")

MOST = 1_000  # that wait; of more the oldest is dropped


class Outbox:
    """A queue of weft.webhooks, and the bell of its sender.

    Args:
        url: where to.
        secret: what it is signed with; empty: it is not.
    """

    def __init__(self, url: str, secret: bytes = b"") -> None:
        self._url = url
        self._secret = secret
        self._waiting: dict[str, tuple[float, int, bytes]] = {}  # id -> due, attempts, body
        self._rung = asyncio.Event()

    def put(self, body: bytes) -> None:
        """Has something told."""
        if len(self._waiting) >= MOST:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            log.warning(
                "an alert was dropped that could not be delivered", extra={"webhook": oldest}
            )
        self._waiting[f"msg_{secrets.token_hex(12)}"] = (time.monotonic(), 0, body)
        self.ring()

    def __len__(self) -> int:
        return len(self._waiting)

    async def claim(self, most: int, within: timedelta) -> Sequence[Delivery]:
        """See weft.webhooks.Queue."""
        now = time.monotonic()
        found: list[Delivery] = []
        for key, (due, attempts, body) in list(self._waiting.items()):
            if due <= now and len(found) < most:
                self._waiting[key] = (now + within.total_seconds(), attempts + 1, body)
                found.append(
                    Delivery(
                        id=key, attempts=attempts + 1, url=self._url, secret=self._secret, body=body
                    )
                )
        return found

    async def settle(self, taken: Delivery, state: str, pause: timedelta, problem: str) -> None:
        """See weft.webhooks.Queue."""
        if state == "PENDING" and taken.id in self._waiting:
            due = time.monotonic() + pause.total_seconds()
            self._waiting[taken.id] = (due, taken.attempts, taken.body)
            extra = {"webhook": taken.id, "problem": problem, "attempts": taken.attempts}
            log.warning("an alert was not delivered yet", extra=extra)
        else:
            self._waiting.pop(taken.id, None)

    async def next_due(self) -> float | None:
        """See weft.webhooks.Queue."""
        if not self._waiting:
            return None
        return max(0.0, min(due for due, _, _ in self._waiting.values()) - time.monotonic())

    async def forget(self, most: int, keep: timedelta) -> int:
        """See weft.webhooks.Queue: nothing is kept that ended."""
        del most, keep
        return 0

    def ring(self) -> None:
        """Wakes the sender."""
        self._rung.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Waits for a ring."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        rung = self._rung.is_set()
        self._rung.clear()
        return rung


class Teller(Sender):
    """Sends what the outbox has: signed where there is a secret, as it is where there is none."""

    async def told(self, taken: Delivery) -> Told:
        """What is sent."""
        if taken.secret:
            return Told(body=taken.body, headers=headers(taken.secret, taken.id, taken.body))
        return Told(body=taken.body, headers={"content-type": "application/json"})
