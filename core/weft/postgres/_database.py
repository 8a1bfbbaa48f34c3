"""Single point of control for connections to PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import asyncpg

from weft.postgres import _migrations
from weft.postgres._errors import DRIVER_ERRORS, broke, translated
from weft.postgres._queries import Queries
from weft.postgres._transaction import Connection, Transaction, execute, time_left

CONNECT_LIMIT = 10.0  # seconds
_CLOSE_LIMIT = 1.0  # seconds
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]*")
_POOL_SIZE = 10

T = TypeVar("T")
Act = Callable[[Connection], Awaitable[T]]


class Database:
    """A pool of connections that look into one schema. Close it by `close()`.

    A statement may take what is left of the current rpc.Deadline, and 30 seconds at most. Its
    methods raise: Unavailable when the server is away (a statement that only reads is tried once
    more on a fresh connection before that), DeadlineExceeded, AlreadyExists (unique), Aborted
    (deadlock, serialization), FailedPrecondition (foreign key), InvalidArgument (a value that
    cannot be stored); `metadata["constraint"]` names the constraint. After Unavailable or
    DeadlineExceeded a change may have been made or not.

    A SELECT that calls a function of one's own which changes something, and may not run twice,
    belongs into `execute` or a transaction: `fetch` takes every SELECT without a changing word in
    it for a read.
    """

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], schema: str) -> None:
        self._pool = pool
        self._schema = schema
        self._queries = Queries()

    @classmethod
    async def connect(
        cls, url: str, schema: str, *, pool_size: int = _POOL_SIZE, application: str = ""
    ) -> Self:
        """Opens a pool on `url`. The schema need not exist before `migrate`. Raises rpc.Error.

        The server knows its connections by the name `application`, "weft-SCHEMA" where none is given.
        """
        if not _SCHEMA.fullmatch(schema):
            raise ValueError(f"{schema!r} is no plain name for a schema")
        with translated():
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=pool_size,
                timeout=CONNECT_LIMIT,
                reset=_reset,
                server_settings={
                    "search_path": schema,
                    "application_name": application or f"weft-{schema}",
                },
            )
        return cls(pool, schema)

    @classmethod
    async def opened(
        cls, url: str, schema: str, *packages: str, pool_size: int = _POOL_SIZE
    ) -> Self:
        """A pool on `url` whose schema has been brought up to date by packages. Raises as `connect` and `migrate` do."""
        database = await cls.connect(url, schema, pool_size=pool_size)
        try:
            for package in packages:
                await database.migrate(package)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Closes all connections; statements that still run after a second are cut."""
        try:
            async with asyncio.timeout(_CLOSE_LIMIT):
                await self._pool.close()
        except DRIVER_ERRORS:  # TimeoutError is one
            self._pool.terminate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def ping(self) -> None:
        """Asks the server for an answer. Raises rpc.Error where it gives none."""
        await self._run(lambda on: on.fetchval("SELECT 1", timeout=time_left()), twice=True)

    def load(self, package: str) -> None:
        """Reads the named queries of a package; `migrate` does it too."""
        self._queries.load(package)

    async def migrate(self, package: str, *, anyway: bool = False) -> list[str]:
        """Reads the queries of a package and runs those of its migrations that were never run.

        All run in one transaction, one process at a time: either all take effect or none. Returns
        their names. Where something is to do and sessions are told to run no migrations
        (`weft.migrate`), it raises SchemaBehind, unless `anyway`. Raises MigrationFailed,
        MigrationChanged or rpc.Unavailable.
        """
        self.load(package)
        async with self._begun() as connection:
            return await _migrations.run(connection, package, self._schema, anyway=anyway)

    async def pending(self, package: str) -> list[str]:
        """The migrations of a package that were never run. Raises MigrationChanged or rpc.Unavailable."""
        async with self._begun() as connection:
            return await _migrations.pending(connection, package, self._schema)

    def query(self, name: str) -> str:
        """The SQL of the query `name`. Raises UnknownQuery."""
        return self._queries[name].sql

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """All rows of the query `name`."""
        query = self._queries[name]
        return await self._run(
            lambda on: on.fetch(query.sql, *args, timeout=time_left()), twice=query.reads
        )

    async def fetchrow(self, name: str, *args: Any) -> asyncpg.Record | None:
        """The first row of the query `name`, None if there is none."""
        query = self._queries[name]
        return await self._run(
            lambda on: on.fetchrow(query.sql, *args, timeout=time_left()), twice=query.reads
        )

    async def fetchval(self, name: str, *args: Any) -> Any:
        """The first value of the first row of the query `name`, None if there is none."""
        query = self._queries[name]
        return await self._run(
            lambda on: on.fetchval(query.sql, *args, timeout=time_left()), twice=query.reads
        )

    async def execute(self, name: str, *args: Any) -> int:
        """Runs the query `name` and returns how many rows it changed. It is never run twice."""
        query = self._queries[name]
        return await self._run(lambda on: execute(on, query, *args), twice=False)

    async def execute_many(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        """Runs the query `name` once for each of `rows`, which are its arguments: all take effect or none.

        A few rows cost half of what `copy` does, which pays off from some dozens on.
        """
        query = self._queries[name]
        await self._run(
            lambda on: on.executemany(query.sql, rows, timeout=time_left()), twice=False
        )

    async def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Adds rows to a table by COPY: at a third of what an INSERT of arrays costs. All or none.

        Raises AlreadyExists when a row is there already.
        """
        await self._run(
            lambda on: on.copy_records_to_table(
                table, records=rows, columns=columns, timeout=time_left()
            ),
            twice=False,
        )

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Begins a transaction; commits at the end of the block, rolls back when it raises.

        Raises Unavailable from a commit whose answer was lost: it may have taken effect.
        """
        async with self._begun() as connection:
            yield Transaction(connection, self._queries)

    @contextlib.asynccontextmanager
    async def _begun(self) -> AsyncIterator[Connection]:
        with translated():
            try:
                connection, work = await self._begin()
            except Exception as failed:
                if not broke(failed):
                    raise
                await self._forget_connections()
                connection, work = await self._begin()
        try:
            try:
                yield connection
            except BaseException:
                await _roll_back(connection, work)
                raise
            with translated():
                await work.commit()
        finally:
            await self._pool.release(connection)

    async def _begin(self) -> tuple[Connection, asyncpg.transaction.Transaction]:
        connection = await self._pool.acquire(timeout=time_left())
        try:
            work = connection.transaction()
            async with asyncio.timeout(time_left()):
                await work.start()
        except BaseException:
            await self._pool.release(connection)
            raise
        return connection, work

    async def _run(self, act: Act[T], *, twice: bool) -> T:
        with translated():
            try:
                return await self._once(act)
            except Exception as failed:
                if not (twice and broke(failed)):
                    raise
            await self._forget_connections()
            return await self._once(act)

    async def _once(self, act: Act[T]) -> T:
        async with self._pool.acquire(timeout=time_left()) as connection:
            return await act(connection)

    async def _forget_connections(self) -> None:
        # After a restart of the server every pooled connection is dead, each not noticed before
        # its first use; the next one to be taken must be a new one.
        await self._pool.expire_connections()


async def _reset(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    # asyncpg's own reset is a round trip for each statement, to undo what is never done here
    # (LISTEN, SET, session locks).
    if connection.is_in_transaction():
        await connection.reset()


async def _roll_back(connection: Connection, work: asyncpg.transaction.Transaction) -> None:
    try:
        await work.rollback()
    except DRIVER_ERRORS:
        with contextlib.suppress(asyncpg.InterfaceError):  # the loss was noticed before
            connection.terminate()
