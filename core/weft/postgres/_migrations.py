"""Brings a schema up to date."""

from __future__ import annotations

import hashlib
import logging

import asyncpg

from weft import rpc
from weft.postgres._errors import broke, translated
from weft.postgres._queries import Queries, Script, migrations
from weft.postgres._transaction import Connection

_LOG = logging.getLogger("weft.postgres")
_SQL = "weft.postgres.sql"


class MigrationFailed(rpc.FailedPrecondition):
    """A migration did not run; nothing was changed."""

    reason = "MIGRATION_FAILED"


class MigrationChanged(rpc.FailedPrecondition):
    """A migration that was run before has another text now."""

    reason = "MIGRATION_CHANGED"


async def run(connection: Connection, package: str, schema: str) -> list[str]:
    """Runs what was never run, in the transaction that is open on `connection`; returns the names."""
    own = Queries()
    own.load(_SQL)
    with translated():
        await connection.execute(own["lock_schema"].sql, schema)
        await connection.execute(own["create_schema"].sql)
        await connection.execute(own["create_migrations"].sql)
        rows = await connection.fetch(own["all_migrations"].sql)
    before: dict[str, str] = {row["name"]: row["digest"] for row in rows}
    done: list[str] = []
    for script in migrations(package):
        digest = hashlib.sha256(script.sql.encode()).hexdigest()
        if script.name not in before:
            await _apply(connection, script)
            with translated():
                await connection.execute(own["put_migration"].sql, script.name, digest)
            done.append(script.name)
        elif before[script.name] != digest:
            raise MigrationChanged(
                f"{script.name} was run on schema {schema} with another text. "
                "Take the change back and put it into a new migration."
            )
    if done:
        _LOG.info("migrated schema %s: %s", schema, ", ".join(done))
    return done


async def _apply(connection: Connection, script: Script) -> None:
    with translated():
        try:
            await connection.execute(script.sql)
        except asyncpg.PostgresError as failed:
            if broke(failed):
                raise
            raise MigrationFailed(
                f"Migration {script.name} failed, nothing was changed: {failed}"
            ) from failed
