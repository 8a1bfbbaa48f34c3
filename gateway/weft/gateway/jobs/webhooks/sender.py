"""Sends what is due of the queue of webhooks: again and again with growing pauses until it is answered 2xx, or given up.

At least once: who sends one and dies before it could say so leaves it due again. The receiver knows a delivery by its
`webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

import asyncpg
import httpx
import orjson

from weft import rpc
from weft.gateway.jobs.bells import Bells
from weft.gateway.jobs.webhooks.signing import headers
from weft.gateway.jobs.webhooks.targets import TargetRefused, Targets
from weft.postgres import Database

log = logging.getLogger("weft.gateway")

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
class Told:
    """What is sent."""

    body: bytes
    headers: Mapping[str, str]


Form = Callable[[str, str], Awaitable[Told]]
"""Makes what a subscriber is told of a job: of their two ids. Raises Refused where one of them is gone."""


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


class Sender:
    """Sends webhooks.

    Args:
        database: with the queries of weft.gateway.sql.
        bells: what wakes it.
        targets: where they may go.
        forms: what subscribers are told, by the kind of a job.
        tls: whose certificates are believed; None: those that the system's client libraries believe.
        on_sent: told after each attempt in what state the delivery is.
    """

    def __init__(
        self,
        database: Database,
        bells: Bells,
        targets: Targets,
        settings: SenderSettings | None = None,
        *,
        forms: Mapping[str, Form] = MappingProxyType({}),
        tls: ssl.SSLContext | None = None,
        on_sent: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tls = tls
        self._forms = forms
        self._on_sent = on_sent
        self._database = database
        self._bells = bells
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
                    rows = await self._database.fetch(
                        "claim_webhooks", room, settings.time + _MARGIN
                    )
                    for row in rows:
                        self._begin(client, row)
                    due = await self._database.fetchval("next_webhook_due")
                    pause = _LONGEST_PAUSE if due is None else due
            except rpc.Error:
                log.warning("webhooks cannot be taken now", exc_info=True)
                pause = _LEAST_PAUSE
            await self._bells.webhook.wait(min(max(pause, _LEAST_PAUSE), _LONGEST_PAUSE))

    def _begin(self, client: httpx.AsyncClient, row: asyncpg.Record) -> None:
        task = asyncio.create_task(self._deliver(client, row), name=f"webhook {row['id']}")
        self._sending.add(task)
        task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.error("a webhook could not be settled", exc_info=failed)
        self._bells.webhook.ring()  # there is room

    async def _deliver(self, client: httpx.AsyncClient, row: asyncpg.Record) -> None:
        settings = self._settings
        state, pause, problem = "DELIVERED", timedelta(0), ""
        try:
            async with asyncio.timeout(settings.time.total_seconds()):
                await self._post(client, row)
        except TimeoutError:
            state, problem = "PENDING", "it did not answer in time"
        except Refused as refused:
            state, problem = "DEAD" if refused.final else "PENDING", refused.problem
        if state == "PENDING":
            pause = self._pause(row["attempts"])
            if row["attempts"] >= settings.attempts:
                state = "DEAD"
        if state == "DEAD":
            log.warning("a webhook was given up", extra={"webhook": row["id"], "problem": problem})
        args = (row["id"], row["attempts"], state, pause, problem)
        try:
            if await self._database.execute("end_webhook", *args):
                self._on_sent(state)
        except rpc.Error:  # it is due again
            log.warning("what became of a webhook is lost", extra={"webhook": row["id"]})

    async def _post(self, client: httpx.AsyncClient, row: asyncpg.Record) -> None:
        told = await self._told(row)
        try:
            target = await self._targets.resolve(row["url"])
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

    async def _told(self, row: asyncpg.Record) -> Told:
        if not row["subscriber"]:
            body = _body(row)
            return Told(body=body, headers=headers(row["secret"], row["id"], body))
        form = self._forms.get(row["kind"])
        if form is None:
            raise Refused("this gateway does not know how to tell it")
        try:
            return await form(row["job"], row["subscriber"])
        except rpc.Error as failed:
            raise Refused(f"it cannot be put together ({failed.message})") from None

    def _pause(self, attempts: int) -> timedelta:
        settings = self._settings
        grown: timedelta = settings.first_pause * int(4 ** min(attempts - 1, 20))
        jitter = random.uniform(0.5, 1)  # noqa: S311 no secret
        return min(grown, settings.longest_pause) * jitter

    async def _cleaning(self) -> None:
        settings = self._settings
        while True:
            try:
                while await self._database.execute("forget_webhooks", _FORGOTTEN, settings.keep):
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


def _body(row: asyncpg.Record) -> bytes:
    # What the job came to is left for its owner to fetch: a webhook says that there is something to fetch.
    return orjson.dumps(
        {
            "type": f"job.{row['job_state'].lower()}",
            "timestamp": row["event_time"],
            "data": {
                "job": row["job"],
                "state": f"JOB_STATE_{row['job_state']}",
                "method": row["method"].lstrip("/"),
            },
        }
    )
