"""PostgreSQL: its version, the connections that are left, and what was migrated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from weft.cli.doctor.model import Finding, fail, ok, warn
from weft.cli.schemas import SCHEMAS

if TYPE_CHECKING:
    import asyncpg

_OLDEST = 14
_PATIENCE = 3.0  # seconds
_MANY, _MOST = 0.8, 0.95  # of the connections


async def look(url: str) -> list[Finding]:
    """What there is to know of a database.

    Args:
        url: of it; empty: there is none.
    """
    import asyncpg

    away = (
        "Agents cannot register, jobs and runs do not go on, and API keys are not known.",
        "Start it, or say where it is: WEFT_DATABASE_URL. `weft up` brings its own.",
    )
    if not url:
        return [fail("postgres", "none runs on this data folder, and none is set", *away)]
    try:
        connection = await asyncpg.connect(url, timeout=_PATIENCE, command_timeout=_PATIENCE)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as failed:
        return [fail("postgres", _line(failed), *away)]
    found = [_version(connection.get_server_version())]
    try:
        found += await _writes(connection)
        found.append(await _connections(connection))
        found += await _migrations(connection)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as failed:
        found.append(
            warn(
                "postgres",
                f"it does not show everything: {_line(failed)}",
                "What is wrong there stays unseen.",
                "Ask by a role that may read Weft's schemas: --database-url or WEFT_DATABASE_URL.",
            )
        )
    finally:
        await connection.close(timeout=_PATIENCE)
    return found


def _line(failed: Exception) -> str:
    return (str(failed) or type(failed).__name__).splitlines()[0]


def _version(version: Any) -> Finding:
    what = f"version {version.major}.{version.minor}"
    if version.major >= _OLDEST:
        return ok("postgres", what)
    return fail(
        "postgres",
        what,
        "Weft's statements need features of newer versions.",
        f"Update it to {_OLDEST} or newer.",
    )


async def _writes(connection: asyncpg.Connection[Any]) -> list[Finding]:
    if not await connection.fetchval(
        "SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool"
    ):
        return []
    return [
        fail(
            "postgres writes",
            "it only reads: a replica, or default_transaction_read_only is on",
            "Nothing can be stored.",
            "Name the primary: WEFT_DATABASE_URL.",
        )
    ]


async def _connections(connection: asyncpg.Connection[Any]) -> Finding:
    row = await connection.fetchrow(
        "SELECT count(*) AS used, current_setting('max_connections')::int AS most FROM pg_stat_activity "
        "WHERE backend_type = 'client backend'"
    )
    assert row is not None
    share = row["used"] / row["most"]
    check, what = "postgres connections", f"{row['used']} of {row['most']}"
    if share < _MANY:
        return ok(check, what)
    why = "Parts that start, or need one more, are refused."
    do = "Raise max_connections, or put a pooler in session mode before it; see who has them in pg_stat_activity."
    return (fail if share >= _MOST else warn)(check, what, why, do)


async def _migrations(connection: asyncpg.Connection[Any]) -> list[Finding]:
    rows = await connection.fetch(
        "SELECT schemaname FROM pg_tables WHERE tablename = 'weft_migrations'"
    )
    there = {row["schemaname"] for row in rows}
    found: list[Finding] = []
    for schema in SCHEMAS:
        if schema.name in there and schema.usable():
            query = f'SELECT name, digest FROM "{schema.name}".weft_migrations'  # noqa: S608 ours
            ran = await connection.fetch(query)
            digests = {row["name"]: row["digest"] for row in ran}
            found += _compared(schema.name, digests, schema.packages)
    return found


def _compared(schema: str, ran: Mapping[str, str], packages: tuple[str, ...]) -> Iterator[Finding]:
    from weft.postgres import migrations

    ours = {
        script.name: hashlib.sha256(script.sql.encode()).hexdigest()
        for package in packages
        for script in migrations(package)
    }
    check = f"schema {schema}"
    if changed := [name for name, digest in ran.items() if ours.get(name, digest) != digest]:
        yield fail(
            check,
            f"{', '.join(changed)} was run with another text",
            "The part that owns it does not start.",
            "Take the change back, or go back to the version that made it.",
        )
    if missing := sorted(ours.keys() - ran.keys()):
        yield warn(
            check,
            f"{', '.join(missing)} was not run yet",
            "Its part is older than this command, or was not started since the upgrade.",
            "Start the new version of the part: it migrates as it starts.",
        )
    if newer := sorted(ran.keys() - ours.keys()):
        yield warn(
            check,
            f"{', '.join(newer)} is not known to this version",
            "A newer version of Weft was here; an older one may not read what it wrote.",
            "Update this installation.",
        )
    if not changed and not missing and not newer:
        yield ok(check, f"{len(ran)} migrations")
