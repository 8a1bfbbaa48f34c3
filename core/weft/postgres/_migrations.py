"""Brings a schema up to date.

What is to do is looked up first, without a lock and without rights to make anything: a schema that is up to date takes a
role that may only read and write rows. Sessions whose setting `weft.migrate` is `off`, which a URL
(`?options=-c%20weft.migrate%3Doff`), a role or a database can say, run no migrations.
"""

from __future__ import annotations

import hashlib
import logging

import asyncpg

from weft import rpc
from weft.postgres._errors import broke, translated
from weft.postgres._queries import Queries, Script, migrations
from weft.postgres._transaction import Connection

_LOG = logging.getLogger("weft.postgres")
_OWN = Queries()
_OWN.load("weft.postgres.sql")


class MigrationFailed(rpc.FailedPrecondition):
    """A migration did not run; nothing was changed."""

    reason = "MIGRATION_FAILED"


class MigrationChanged(rpc.FailedPrecondition):
    """A migration that was run before has another text now."""

    reason = "MIGRATION_CHANGED"


class SchemaBehind(rpc.FailedPrecondition):
    """A schema lacks migrations, and this process may not run them."""

    reason = "SCHEMA_BEHIND"


async def pending(connection: Connection, package: str, schema: str) -> list[str]:
    """The names of what was never run. Raises MigrationChanged."""
    return [script.name for script in await _missing(connection, package, schema)]


async def run(
    connection: Connection, package: str, schema: str, *, anyway: bool = False
) -> list[str]:
    """Runs what was never run, in the transaction that is open on `connection`; returns the names.

    Args:
        connection: looks into the schema.
        package: with the migrations.
        schema: its name.
        anyway: also where the session is told to run none.
    """
    missing = await _missing(connection, package, schema)
    if not missing:
        return []
    with translated():
        off = not anyway and await connection.fetchval(_OWN["migrates"].sql) == "off"
    if off:
        raise SchemaBehind(
            f"Schema {schema} lacks {', '.join(script.name for script in missing)}, and this process may "
            "not migrate it (WEFT_MIGRATE=off). Run `weft migrate` of this version first.",
            metadata={"schema": schema},
        )
    with translated():
        await connection.execute(_OWN["lock_schema"].sql, schema)
        await connection.execute(_OWN["create_schema"].sql)
        await connection.execute(_OWN["create_migrations"].sql)
        await connection.execute(_OWN["bound_locks"].sql)
    missing = await _missing(connection, package, schema)  # another process may have been faster
    for script in missing:
        await _apply(connection, script)
        with translated():
            await connection.execute(_OWN["put_migration"].sql, script.name, _digest(script))
    if missing:
        done = ", ".join(script.name for script in missing)
        _LOG.info("migrated schema %s: %s", schema, done)
    return [script.name for script in missing]


async def _missing(connection: Connection, package: str, schema: str) -> list[Script]:
    with translated():
        there = await connection.fetchval(_OWN["has_migrations"].sql, schema)
        rows = await connection.fetch(_OWN["all_migrations"].sql) if there else []
    before: dict[str, str] = {row["name"]: row["digest"] for row in rows}
    missing = []
    for script in migrations(package):
        if script.name not in before:
            missing.append(script)
        elif before[script.name] != _digest(script):
            raise MigrationChanged(
                f"{script.name} was run on schema {schema} with another text. "
                "Take the change back and put it into a new migration."
            )
    return missing


def _digest(script: Script) -> str:
    return hashlib.sha256(script.sql.encode()).hexdigest()


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
