"""PostgreSQL's part of a backup: pg_dump in its custom format, of the schemas that are the mesh's, as of one moment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import asyncpg

from weft import embedded
from weft.cli.backup.manifest import PostgresPart
from weft.cli.failures import Failure

FILE = "postgres.dump"
Report = Callable[[str], None]

# A schema is the mesh's when it was made by migrations.
_SCHEMAS = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'weft_migrations' AND c.relkind = 'r' ORDER BY 1
"""
_EXTENSIONS = "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1"
_CONNECTED = """
SELECT application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'weft-%' AND pid <> pg_backend_pid() ORDER BY 1
"""
_NAME = "application_name"


async def dump(url: str, folder: Path, report: Report) -> PostgresPart:
    """Dumps all schemas of a mesh.

    Raises:
        Failure: there are none, or pg_dump fails.
        embedded.NotInstalled: there is no pg_dump that is new enough.
    """
    async with _Connected(url) as server:
        schemas = await server.names(_SCHEMAS)
        extensions = await server.names(_EXTENSIONS)
    if not schemas:
        raise Failure(
            "The database has none of Weft's schemas. Name another one by --database-url."
        )
    report(f"postgres {server.version}: dumping {', '.join(schemas)}")
    chosen = [f"--schema={name}" for name in schemas]
    chosen += [f"--extension={name}" for name in extensions]
    path = folder / FILE
    path.touch(mode=0o600)
    await _run("pg_dump", url, "--format=custom", f"--file={path}", *chosen, major=server.major)
    # An archive whose table of contents cannot be read is found now rather than when it is needed.
    await _run("pg_restore", None, "--list", str(path), major=server.major)
    return PostgresPart(file=FILE, version=server.version, schemas=schemas)


async def refuse_unfit(url: str, part: PostgresPart, *, force: bool) -> None:
    """Looks at the database that a dump is to go to.

    Raises:
        Failure: parts of a mesh use it; it is older than that which was dumped; it has what is in the dump, and not `force`.
    """
    async with _Connected(url) as server:
        if connected := await server.names(_CONNECTED):
            raise Failure(
                f"Parts of a mesh are connected to the database: {', '.join(dict.fromkeys(connected))}. Stop them first."
            )
        if server.major < int(part.version.split(".")[0]):
            raise Failure(
                f"The dump is of PostgreSQL {part.version}; {server.version} is older. "
                "Restore it into the same major version or a newer one."
            )
        there = sorted(set(await server.names(_SCHEMAS)) & set(part.schemas))
    if there and not force:
        raise Failure(
            f"The database is not empty: it has the schemas {', '.join(there)}. Name an empty one, "
            "or replace what is there: --force."
        )


async def restore(url: str, part: PostgresPart, folder: Path, report: Report) -> None:
    """Brings the schemas of a dump back, in one transaction; what is in the way is dropped.

    Raises:
        Failure: pg_restore fails; what was there is there no more.
    """
    async with _Connected(url) as server:
        for name in part.schemas:
            await server.drop(name)
    report(f"postgres {server.version}: restoring {', '.join(part.schemas)}")
    await _run(
        *("pg_restore", url, "--single-transaction", "--exit-on-error", "--no-owner"),
        # Comments: those on extensions are their owner's to make, which a service keeps for itself.
        *("--no-privileges", "--no-comments", str(folder / part.file)),
        major=int(part.version.split(".")[0]),
    )


class _Connected:
    """A connection to a server, and which version that is."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Self:
        try:
            self._connection = await asyncpg.connect(
                self._url, timeout=10, server_settings={_NAME: "weft-backup"}
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as failed:
            raise Failure(f"PostgreSQL cannot be reached: {failed}") from failed
        self.version = str(await self._connection.fetchval("SHOW server_version")).split()[0]
        self.major = self._connection.get_server_version().major
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close(timeout=5)

    async def names(self, query: str) -> list[str]:
        """The first column of a query."""
        return [str(row[0]) for row in await self._connection.fetch(query, timeout=30)]

    async def drop(self, schema: str) -> None:
        """Drops a schema with all that is in it."""
        quoted = schema.replace('"', '""')
        await self._connection.execute(f'DROP SCHEMA IF EXISTS "{quoted}" CASCADE', timeout=300)


async def _run(program: str, url: str | None, *arguments: str, major: int) -> None:
    path = await embedded.postgres_program(program, major=major)
    where, environment = _without_password(url) if url else ([], {})
    process = await asyncio.create_subprocess_exec(
        *(str(path), *where, *arguments),
        env={**os.environ, "PGCONNECT_TIMEOUT": "10", **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except BaseException:
        process.terminate()
        await process.wait()
        raise
    if process.returncode:
        raise Failure(f"{program} failed:\n{said.decode(errors='replace').strip()}")


def _without_password(url: str) -> tuple[list[str], dict[str, str]]:
    """A URL for a command line, which everybody on the machine can read, and the password beside it."""
    parts = urlsplit(url)
    account, at, hosts = parts.netloc.rpartition("@")
    user, _, password = account.partition(":")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    password = unquote(password) or query.pop("password", "")
    query[_NAME] = "weft-backup"
    plain = parts._replace(
        netloc=f"{user}{at}{hosts}", query=urlencode(query, quote_via=quote)
    ).geturl()
    return [f"--dbname={plain}"], {"PGPASSWORD": password} if password else {}
