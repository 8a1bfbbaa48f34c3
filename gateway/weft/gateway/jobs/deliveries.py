"""What callers are to be told of their jobs by webhook, as they see it: lists, and another try for what was given up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

from weft import rpc
from weft.gateway.jobs.bells import Bells
from weft.gateway.jobs.model import Owner
from weft.postgres import Database
from weft.rpc.paging import page_begin, page_size, page_token

_DEFAULT_PAGE, _LARGEST_PAGE = 50, 500
_NEWEST = 2**62


class WebhookNotFound(rpc.NotFound):
    """There is no such delivery of yours that was given up."""

    reason = "WEBHOOK_NOT_FOUND"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery."""

    id: str
    number: int
    job: str
    job_state: str
    url: str
    state: str
    """PENDING, DELIVERED or DEAD."""
    attempts: int
    problem: str
    event_time: datetime
    due: datetime | None

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> Self:
        """A delivery as it is stored."""
        values = {name: row[name] for name in cls.__slots__}
        return cls(**(values | {"due": row["due"] if row["state"] == "PENDING" else None}))


class Deliveries:
    """The deliveries that are stored. Both methods raise rpc.Unavailable where the database is away."""

    def __init__(self, database: Database, bells: Bells) -> None:
        self._database = database
        self._bells = bells

    async def page(
        self, owner: Owner, *, state: str, size: int, token: str
    ) -> tuple[Sequence[Delivery], str]:
        """Deliveries of an owner in a state (empty: any), the newest first, and the token of the next page.

        Raises:
            rpc.InvalidArgument: `size` is negative, or `token` is of another list.
        """
        size = page_size(size, default=_DEFAULT_PAGE, most=_LARGEST_PAGE)
        made_for = f"webhooks {owner.tenant}\0{owner.subject}\0{state}"
        last = page_begin(token, made_for=made_for, like=(0,))
        args = (owner.tenant, owner.subject, state, last[0] if last else _NEWEST, size + 1)
        rows = await self._database.fetch("list_webhooks", *args)
        found = [Delivery.from_row(row) for row in rows[:size]]
        more = len(rows) > size
        return found, page_token((found[-1].number,), made_for=made_for) if more else ""

    async def retry(self, owner: Owner, delivery: str) -> Delivery:
        """Tries a delivery again that was given up.

        Raises:
            WebhookNotFound: see there.
        """
        args = (owner.tenant, owner.subject, delivery)
        row = await self._database.fetchrow("retry_webhook", *args)
        if row is None:
            raise WebhookNotFound
        self._bells.webhook.ring()
        return Delivery.from_row(row)
