"""Sends what is due of the queue of webhooks: again and again with growing pauses until it is answered 2xx, or given up.

At least once: who sends one and dies before it could say so leaves it due again. The receiver knows a delivery by its
`webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import httpx

from weft import rpc
from weft.webhooks.signing import headers
from weft.webhooks.targets import TargetRefused, Targets

log = logging.getLogger("weft.webhooks")

_LEAST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between looks that nobody asked for
_MARGIN = timedelta(seconds=5)  # to say what came of an attempt
_MOST_ANSWER = 64 * 1024  # bytes
_FORGOTTEN = 1_000  # rows a statement forgets
_GONE = 410


class Refused(Exception):
    """The receiver did not take it, or it cannot be told. `final`: it never will."""

    def __init__(self, problem: str, *, final: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.final = final


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """How webhooks are sent."""

    at_once: int = 16
    """Deliveries one process makes at a time."""
    attempts: int = 10
    """How often one is tried."""
    first_pause: timedelta = timedelta(seconds=5)
    """Before the second attempt, half of it to all; four times as long before each later one."""
    longest_pause: timedelta = timedelta(hours=6)
    """The most it grows to."""
    time: timedelta = timedelta(seconds=15)
    """How long an attempt may take."""
    keep: timedelta = timedelta(days=7)
    """For how long it is known what became of one."""
    cleaned: timedelta = timedelta(minutes=10)
    """How often what is too old is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Something to be told.

    Attributes:
        id: by which its receiver knows it again.
        attempts: how often it was tried, this time included.
        url: where to.
        secret: what it is signed with.
        body: JSON.
    """

    id: str
    attempts: int
    url: str
    secret: bytes = field(repr=False)
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is sent."""

    body: bytes
    headers: Mapping[str, str]


class Queue(Protocol):
    """Where deliveries are kept. Its methods raise rpc.Error where they cannot be done now."""

    async def claim(self, most: int, within: timedelta) -> Sequence[Delivery]:
        """Takes deliveries that are due; whoever takes one has `within` for its attempt, then it is due again."""
        ...

    async def settle(self, taken: Delivery, state: str, pause: timedelta, problem: str) -> None:
        """Keeps what came of an attempt: DELIVERED, DEAD, or PENDING and due again after a pause."""
        ...

    async def next_due(self) -> float | None:
        """In how many seconds a delivery is due; None: none is."""
        ...

    async def forget(self, most: int, keep: timedelta) -> int:
        """Forgets deliveries that ended so long ago, and says how many."""
        ...


class Rings(Protocol):
    """What wakes a sender."""

    def ring(self) -> None:
        """Wakes it."""
        ...

    async def wait(self, seconds: float | None = None) -> bool:
        """Waits for a ring, at most `seconds`."""
        ...


class Sender:
    """Sends webhooks.

    Args:
        queue: where they are.
        bell: rung when there are more.
        targets: where they may go.
        tls: whose certificates are believed; None: those that the system's client libraries believe.
    """

    def __init__(
        self,
        queue: Queue,
        bell: Rings,
        targets: Targets,
        settings: SenderSettings | None = None,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self._queue = queue
        self._bell = bell
        self._targets = targets
        self._settings = settings or SenderSettings()
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Sends webhooks until cancelled; for a task of its own."""
        # No proxy of the environment: what is checked here would be looked up anew there. No connection is kept: it
        # would serve every name of its address, whatever certificate it was opened with.
        limits = httpx.Limits(max_keepalive_connections=0)
        time = self._settings.time.total_seconds()
        async with (
            httpx.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                timeout=time,
                limits=limits,
                verify=self._tls or True,
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._cleaning())
            try:
                await self._taking(client)
            finally:
                for each in self._sending:
                    each.cancel()
                await asyncio.gather(*self._sending, return_exceptions=True)

    async def _taking(self, client: httpx.AsyncClient) -> None:
        settings = self._settings
        while True:
            pause = _LONGEST_PAUSE
            try:
                if room := settings.at_once - len(self._sending):
                    for taken in await self._queue.claim(room, settings.time + _MARGIN):
                        self._begin(client, taken)
                    due = await self._queue.next_due()
                    pause = _LONGEST_PAUSE if due is None else due
            except rpc.Error:
                log.warning("webhooks cannot be taken now", exc_info=True)
                pause = _LEAST_PAUSE
            await self._bell.wait(min(max(pause, _LEAST_PAUSE), _LONGEST_PAUSE))

    def _begin(self, client: httpx.AsyncClient, taken: Delivery) -> None:
        task = asyncio.create_task(self._deliver(client, taken), name=f"webhook {taken.id}")
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.error("a webhook could not be settled", exc_info=failed)
        self._bell.ring()  # there is room

    async def _deliver(self, client: httpx.AsyncClient, taken: Delivery) -> None:
        settings = self._settings
        state, pause, problem = "DELIVERED", timedelta(0), ""
        try:
            async with asyncio.timeout(settings.time.total_seconds()):
                await self._post(client, taken)
        except TimeoutError:
            state, problem = "PENDING", "it did not answer in time"
        except Refused as refused:
            state, problem = "DEAD" if refused.final else "PENDING", refused.problem
        if state == "PENDING":
            pause = self._pause(taken.attempts)
            if taken.attempts >= settings.attempts:
                state = "DEAD"
        if state == "DEAD":
            log.warning("a webhook was given up", extra={"webhook": taken.id, "problem": problem})
        try:
            await self._queue.settle(taken, state, pause, problem)
        except rpc.Error:  # it is due again
            log.warning("what became of a webhook is lost", extra={"webhook": taken.id})

    async def told(self, taken: Delivery) -> Told:
        """What a delivery sends; signed, unless a subclass knows another form.

        Raises:
            Refused: it cannot be put together.
        """
        return Told(body=taken.body, headers=headers(taken.secret, taken.id, taken.body))

    async def _post(self, client: httpx.AsyncClient, taken: Delivery) -> None:
        told = await self.told(taken)
        try:
            target = await self._targets.resolve(taken.url)
        except TargetRefused as refused:
            raise Refused(refused.message, final=True) from None
        except rpc.Unavailable as away:
            raise Refused(away.message) from None
        url = target.url
        host = {"host": url.netloc.decode("ascii"), "user-agent": "weft-webhooks/1"}
        request = client.build_request(
            "POST",
            url.copy_with(host=str(target.address)),
            content=told.body,
            headers={**told.headers, **host},
            # The certificate must be that of the name, not of the address.
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )
        try:
            response = await client.send(request, stream=True)
            try:
                await _read_some(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as failed:
            raise Refused(f"it cannot be reached ({type(failed).__name__})") from None
        if not response.is_success:
            status = response.status_code
            raise Refused(f"it answered {status}", final=status == _GONE)

    def _pause(self, attempts: int) -> timedelta:
        settings = self._settings
        grown: timedelta = settings.first_pause * int(4 ** min(attempts - 1, 20))
        jitter = random.uniform(0.5, 1)  # noqa: S311 no secret
        return min(grown, settings.longest_pause) * jitter

    async def _cleaning(self) -> None:
        settings = self._settings
        while True:
            try:
                while await self._queue.forget(_FORGOTTEN, settings.keep):
                    pass
            except rpc.Error:
                log.warning("webhooks cannot be forgotten now", exc_info=True)
            await asyncio.sleep(settings.cleaned.total_seconds())


async def _read_some(response: httpx.Response) -> None:
    """Reads an answer to its end, so that the connection can be used again, unless it is long."""
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > _MOST_ANSWER:
            return
