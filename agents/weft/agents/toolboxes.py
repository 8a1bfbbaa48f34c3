"""Toolboxes of a process's agents: records, rates and kept results are where its settings say.

What they are made of is imported at the first one, for it takes its time and few processes have tools.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from weft import config, rpc

if TYPE_CHECKING:
    import redis.asyncio

    from weft.agents.tools import DatabaseAudit, Tool, Toolbox
    from weft.agents.tools.audit.record import Outcome, Use
    from weft.limits import SharedLimits
    from weft.postgres import Database
    from weft.telemetry import Telemetry

log = logging.getLogger("weft.agents.tools")

_EVERY = timedelta(minutes=10)


class Toolboxes:
    """Makes toolboxes. Entering it makes the tools of the settings; leaving it closes all, and what they share.

    Args:
        settings: `tools` are those that agents have by name; `database_url` is where uses are recorded, for
            `tool_records_keep`; `redis_url` where rates are counted and results kept for all processes, empty: in this one.
        telemetry: where uses are counted and traced.
        every: how often records that are too old are deleted, about.
    """

    def __init__(
        self,
        settings: config.Settings,
        telemetry: Telemetry | None = None,
        *,
        every: timedelta = _EVERY,
    ) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._audit = _Records(settings.database_url, settings.tool_records_keep, every)
        self._tools: Mapping[str, Tool] = {}
        self._stack = contextlib.AsyncExitStack()
        self._limits: SharedLimits | None = None
        self._redis: redis.asyncio.Redis | None = None

    def made(self, tools: Iterable[Tool | str]) -> Toolbox:
        """A toolbox.

        Args:
            tools: tools, and names of tools that the settings have.

        Raises:
            SettingError: there is no `database_url`, and what cannot be recorded is not done; or no tool of a name.
            ValueError: two tools have the same name.
        """
        if not self._settings.database_url:
            raise config.SettingError(
                "database_url: uses of tools are recorded in PostgreSQL; name one with WEFT_DATABASE_URL"
            )
        from weft import embedded
        from weft.agents.tools import RedisShelf, Toolbox
        from weft.limits import SharedLimits

        url = self._settings.redis_url
        if url and self._redis is None:
            self._limits, self._redis = SharedLimits(url), embedded.redis_client(url)
            self._stack.push_async_callback(self._redis.aclose)
            self._stack.push_async_callback(self._limits.close)
        toolbox = Toolbox(
            [self._named(each) if isinstance(each, str) else each for each in tools],
            audit=self._audit,
            limits=self._limits,
            shelf=RedisShelf(self._redis) if self._redis is not None else None,
            telemetry=self._telemetry,
        )
        self._stack.push_async_callback(toolbox.close)
        return toolbox

    def _named(self, name: str) -> Tool:
        if (tool := self._tools.get(name)) is None:
            raise config.SettingError(f"tools: there is no [tools.{name}]")
        return tool

    async def __aenter__(self) -> Self:
        if self._settings.tools:
            from weft.agents.tools.setup import tools_of

            self._tools = await self._stack.enter_async_context(tools_of(self._settings))
        self._stack.push_async_callback(self._audit.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


class _Records:
    """An Audit in PostgreSQL that is opened at the first use: most processes have no tools."""

    def __init__(self, url: str, keep: timedelta, every: timedelta) -> None:
        self._url = url
        self._keep = keep
        self._every = every
        self._opening = asyncio.Lock()
        self._database: Database | None = None
        self._forgetting: asyncio.Task[None] | None = None

    async def begin(self, use: Use) -> None:
        """See Audit."""
        await (await self._opened()).begin(use)

    async def end(self, use: Use, outcome: Outcome) -> None:
        """See Audit."""
        await (await self._opened()).end(use, outcome)

    async def note(self, use: Use, outcome: Outcome) -> None:
        """See Audit."""
        await (await self._opened()).note(use, outcome)

    async def close(self) -> None:
        """Closes the database, where it was opened."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._forgetting
        if self._database is not None:
            await self._database.close()

    async def _opened(self) -> DatabaseAudit:
        from weft.agents.tools import DatabaseAudit, database

        async with self._opening:
            if self._database is None:
                self._database = await database(self._url)
                if self._keep > timedelta(0):
                    forgetting = self._forget(DatabaseAudit(self._database))
                    self._forgetting = asyncio.create_task(forgetting, name="old uses of tools")
        return DatabaseAudit(self._database)

    async def _forget(self, audit: DatabaseAudit) -> None:
        from weft.postgres import DRIVER_ERRORS

        while True:
            await asyncio.sleep(self._every.total_seconds() * random.uniform(0.5, 1))  # noqa: S311 jitter
            try:
                if deleted := await audit.forget(self._keep):
                    log.info("old records of tools were deleted", extra={"records": deleted})
            except (rpc.Error, *DRIVER_ERRORS):
                log.warning("old records of tools cannot be deleted now", exc_info=True)
