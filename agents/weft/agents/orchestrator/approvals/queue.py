"""The webhooks of approvals: where they wait until they are told, and what they are signed with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from weft.postgres import Database
from weft.webhooks import Delivery, new_secret, parse_secret


class Queue:
    """A weft.webhooks.Queue.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, most: int, within: timedelta) -> Sequence[Delivery]:
        """Takes deliveries that are due."""
        rows = await self._database.fetch("claim_webhooks", most, within)
        secrets = {tenant: await self.secret(tenant) for tenant in {row["tenant"] for row in rows}}
        return [
            Delivery(
                id=row["id"],
                attempts=row["attempts"],
                url=row["url"],
                secret=secrets[row["tenant"]],
                body=row["body"],
            )
            for row in rows
        ]

    async def secret(self, tenant: str) -> bytes:
        """What the webhooks of a tenant are signed with; made when it is first asked for."""
        known: bytes | None = await self._database.fetchval("webhook_secret", tenant)
        if known is None:
            fresh = parse_secret(new_secret())
            await self._database.execute("make_webhook_secret", tenant, fresh)
            known = await self._database.fetchval("webhook_secret", tenant)
        assert known is not None
        return known

    async def settle(self, taken: Delivery, state: str, pause: timedelta, problem: str) -> None:
        """Keeps what came of an attempt."""
        args = (taken.id, taken.attempts, state, pause, problem)
        await self._database.execute("end_webhook", *args)

    async def next_due(self) -> float | None:
        """In how many seconds a delivery is due."""
        seconds: float | None = await self._database.fetchval("next_webhook_due")
        return seconds

    async def forget(self, most: int, keep: timedelta) -> int:
        """Forgets deliveries that ended long ago."""
        return await self._database.execute("forget_webhooks", most, keep)
