"""The tool, and the connections behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from google.protobuf.message import Message

from weft.agents.tools.query.asking import Rows, ask
from weft.agents.tools.query.settings import QuerySettings
from weft.agents.tools.tool import Rate, Tool
from weft.postgres import Queries
from weft.tools.v1.query_pb2 import QueryRequest, QueryResponse

_SQL = "weft.agents.tools.query.sql"
_MARGIN = 1.05


class Query:
    """Asks a database.

    Args:
        pool: of connections to it.
        settings: what may be asked.
    """

    def __init__(self, pool: asyncpg.Pool[Any], settings: QuerySettings) -> None:
        self._pool = pool
        self._settings = settings
        self._queries = Queries()
        self._queries.load(_SQL)

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(
        cls, url: str, settings: QuerySettings, *, password: str = ""
    ) -> AsyncIterator[Query]:
        """Connections to a database, closed in the end.

        Args:
            url: of PostgreSQL, with a role that may read what it is for and no more.
            settings: what may be asked.
            password: of the role, where the URL holds none.
        """
        pool = await asyncpg.create_pool(
            url,
            password=password or None,
            min_size=0,
            max_size=settings.connections,
            statement_cache_size=0,
            server_settings={"application_name": "weft-query"},
        )
        try:
            yield cls(pool, settings)
        finally:
            pool.terminate()

    async def ask(self, question: str) -> Rows:
        """The answer to a question. See `asking.ask` for what it raises."""
        return await ask(self._pool, self._settings, lambda name: self._queries[name].sql, question)

    def tool(
        self,
        *,
        name: str = "query",
        about: str = "",
        scopes: tuple[str, ...] | None = None,
        rate: Rate | None = None,
    ) -> Tool:
        """A tool that asks the database.

        Args:
            name: see Tool.
            about: what is in the database, for a model.
            scopes: see Tool.
            rate: see Tool.
        """
        tables = ", ".join(self._settings.tables)

        async def run(request: QueryRequest) -> Message:
            found = await self.ask(request.sql)
            response = QueryResponse(truncated=found.truncated)
            for row in found.rows:
                response.rows.add().update(row)
            return response

        return Tool(
            name=name,
            description=f"Asks a PostgreSQL database by one SELECT. It may read: {tables}. {about}".rstrip(),
            request=QueryRequest,
            response=QueryResponse,
            run=run,
            scopes=scopes,
            effects=False,
            timeout=self._settings.time * _MARGIN,
            rate=rate,
        )
