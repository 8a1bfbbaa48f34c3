"""Statements by name on one connection."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from weft import rpc
from weft.postgres._errors import translated
from weft.postgres._queries import Queries, Query

STATEMENT_LIMIT = 30.0  # seconds, where no deadline says less
_COUNT = re.compile(r"\d+$")

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


def time_left() -> float:
    """Seconds a statement may take: what is left of the current deadline, at most 30.

    Raises DeadlineExceeded when nothing is left.
    """
    deadline = rpc.Deadline.current()
    if deadline is None:
        return STATEMENT_LIMIT
    deadline.check()
    return min(STATEMENT_LIMIT, deadline.seconds())


def changed_rows(status: str) -> int:
    """The count at the end of a command's tag, such as `DELETE 3`; 0 if it has none."""
    count = _COUNT.search(status)
    return int(count[0]) if count else 0


class Transaction:
    """The work between begin and commit; made by `Database.transaction`.

    All methods raise rpc errors as those of Database do, after which the transaction is lost.
    """

    def __init__(self, connection: Connection, queries: Queries) -> None:
        self._connection = connection
        self._queries = queries

    async def fetch(self, name: str, *args: Any) -> list[asyncpg.Record]:
        """All rows of the query `name`."""
        query = self._queries[name]
        with translated():
            return await self._connection.fetch(query.sql, *args, timeout=time_left())

    async def fetchrow(self, name: str, *args: Any) -> asyncpg.Record | None:
        """The first row of the query `name`, None if there is none."""
        query = self._queries[name]
        with translated():
            return await self._connection.fetchrow(query.sql, *args, timeout=time_left())

    async def fetchval(self, name: str, *args: Any) -> Any:
        """The first value of the first row of the query `name`, None if there is none."""
        query = self._queries[name]
        with translated():
            return await self._connection.fetchval(query.sql, *args, timeout=time_left())

    async def execute(self, name: str, *args: Any) -> int:
        """Runs the query `name` and returns how many rows it changed."""
        query = self._queries[name]
        with translated():
            return await execute(self._connection, query, *args)


async def execute(connection: Connection, query: Query, *args: Any) -> int:
    """Runs a query for its effect. Raises driver errors."""
    return changed_rows(await connection.execute(query.sql, *args, timeout=time_left()))
