"""Sends what is due of the queue of the webhooks of jobs."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

import asyncpg
import orjson

from weft import rpc, webhooks
from weft.gateway.jobs.bells import Bells
from weft.postgres import Database
from weft.webhooks import Delivery, Refused, SenderSettings, Targets, Told

Form = Callable[[str, str], Awaitable[Told]]
"""Makes what a subscriber is told of a job: of their two ids. Raises Refused where one of them is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobDelivery(Delivery):
    job: str
    kind: str
    subscriber: str


class Sender(webhooks.Sender):
    """Sends the webhooks of jobs.

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
        super().__init__(_Queue(database, on_sent), bells.webhook, targets, settings, tls=tls)
        self._forms = forms

    async def told(self, taken: Delivery) -> Told:
        """What a delivery sends: subscribers have a form of their door's own."""
        assert isinstance(taken, _JobDelivery)
        if not taken.subscriber:
            return await super().told(taken)
        form = self._forms.get(taken.kind)
        if form is None:
            raise Refused("this gateway does not know how to tell it")
        try:
            return await form(taken.job, taken.subscriber)
        except rpc.Error as failed:
            raise Refused(f"it cannot be put together ({failed.message})") from None


class _Queue:
    """The webhooks that are stored."""

    def __init__(self, database: Database, on_sent: Callable[[str], None]) -> None:
        self._database = database
        self._on_sent = on_sent

    async def claim(self, most: int, within: timedelta) -> Sequence[Delivery]:
        """Takes deliveries that are due."""
        rows = await self._database.fetch("claim_webhooks", most, within)
        return [
            _JobDelivery(
                id=row["id"],
                attempts=row["attempts"],
                url=row["url"],
                secret=row["secret"],
                body=_body(row),
                job=row["job"],
                kind=row["kind"],
                subscriber=row["subscriber"],
            )
            for row in rows
        ]

    async def settle(self, taken: Delivery, state: str, pause: timedelta, problem: str) -> None:
        """Keeps what came of an attempt."""
        args = (taken.id, taken.attempts, state, pause, problem)
        if await self._database.execute("end_webhook", *args):
            self._on_sent(state)

    async def next_due(self) -> float | None:
        """In how many seconds a delivery is due."""
        seconds: float | None = await self._database.fetchval("next_webhook_due")
        return seconds

    async def forget(self, most: int, keep: timedelta) -> int:
        """Forgets deliveries that ended long ago."""
        return await self._database.execute("forget_webhooks", most, keep)


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
