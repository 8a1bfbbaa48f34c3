"""Records in PostgreSQL."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta

import asyncpg

from weft import rpc
from weft.agents.tools.audit.record import RUNNING, Outcome, Use
from weft.postgres import Database

SCHEMA = "tools"
SQL = "weft.agents.tools.audit.sql"


async def database(url: str) -> Database:
    """The schema of records in a PostgreSQL database, brought up to date. Close it by `close()`."""
    return await Database.opened(url, SCHEMA, SQL)


class DatabaseAudit:
    """An Audit in PostgreSQL.

    Args:
        database: its schema has been migrated by `SQL`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, use: Use) -> None:
        """See Audit."""
        await self._insert(use, Outcome(code=RUNNING))

    async def end(self, use: Use, outcome: Outcome) -> None:
        """See Audit."""
        changed = await self._database.execute(
            "end_use", use.id, outcome.code, outcome.reason, outcome.duration
        )
        if not changed:
            raise rpc.NotFound(f"There is no record of the use {use.id}.")

    async def note(self, use: Use, outcome: Outcome) -> None:
        """See Audit."""
        await self._insert(use, outcome)

    async def find(
        self, tenant: str, conversation: str, most: int = 100
    ) -> list[tuple[Use, Outcome]]:
        """What a tenant's conversation used, the latest last, at most the last `most`."""
        rows = await self._database.fetch("find_uses", tenant, conversation, most)
        return [_read(row) for row in reversed(rows)]

    async def latest(
        self,
        *,
        tool: str = "",
        subject: str = "",
        tenant: str = "",
        conversation: str = "",
        outcome: str = "",
        most: int = 100,
    ) -> list[tuple[Use, Outcome]]:
        """The latest uses, the newest first, at most `most`; what is empty is any."""
        wanted = (tool, subject, tenant, conversation, outcome)
        return [_read(row) for row in await self._database.fetch("latest_uses", *wanted, most)]

    async def forget(self, older: timedelta) -> int:
        """Forgets uses that began longer ago, and says how many."""
        return await self._database.execute("forget_uses", older)

    async def _insert(self, use: Use, outcome: Outcome) -> None:
        await self._database.execute(
            "put_use",
            *(use.id, use.began, use.tool, _text(use.subject), _text(use.tenant), use.skill),
            *(_text(use.conversation), _text(use.cause), use.trace_id),
            None if use.arguments is None else json.dumps(use.arguments),
            *(outcome.code, outcome.reason, outcome.duration, outcome.kept),
        )


def _text(value: str) -> str:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")  # which PostgreSQL has no room for


def _read(row: asyncpg.Record) -> tuple[Use, Outcome]:
    given = row["arguments"]
    use = Use(
        id=uuid.UUID(str(row["id"])),
        began=row["began"],
        tool=row["tool"],
        subject=row["subject"],
        tenant=row["tenant"],
        skill=row["skill"],
        conversation=row["conversation"],
        cause=row["cause"],
        trace_id=row["trace_id"],
        arguments=None if given is None else json.loads(given),
    )
    outcome = Outcome(
        code=row["outcome"], reason=row["reason"], duration=row["duration"], kept=row["kept"]
    )
    return use, outcome
