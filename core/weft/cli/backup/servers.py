"""Which servers a backup is of, and which it goes back to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weft import embedded
from weft.cli.failures import Failure

if TYPE_CHECKING:
    from weft.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """URLs; None: leave that one alone."""

    redis_url: str | None
    database_url: str | None


def running(settings: Settings, only: str | None) -> Chosen:
    """The servers that are named, and those of a running `weft up` for those that are not.

    Raises:
        Failure: one is neither named nor running.
    """
    found = embedded.endpoints(settings.data)
    redis_url = settings.redis_url or (found.redis_url if found else "")
    database_url = settings.database_url or (found.database_url if found else "")
    chosen = _only(redis_url, database_url, only)
    for name, url in (("PostgreSQL", chosen.database_url), ("Redis", chosen.redis_url)):
        if url == "":
            option = "--redis-url" if name == "Redis" else "--database-url"
            raise Failure(
                f"No {name}: nothing runs on {settings.data}. Start `weft up` first, name its folder with --data, "
                f"name a server with {option}, or leave it out with --only."
            )
    return chosen


@contextlib.asynccontextmanager
async def to_restore(
    settings: Settings, only: str | None, report: Callable[[str], None]
) -> AsyncIterator[Chosen]:
    """The servers that are named, and embedded ones on the data folder for those that are not, within the block.

    Raises:
        Failure: `weft up` runs on that folder.
    """
    from weft.cli.house import HouseLock

    named = _only(settings.redis_url, settings.database_url, only)
    async with contextlib.AsyncExitStack() as stack:
        if "" in (named.redis_url, named.database_url):
            stack.enter_context(HouseLock(settings.data))
            found = await stack.enter_async_context(
                embedded.launch(
                    settings.data,
                    redis_url=settings.redis_url or None if only != "postgres" else "unused",
                    database_url=settings.database_url or None if only != "redis" else "unused",
                    on_progress=report,
                )
            )
            named = _only(found.redis_url, found.database_url, only)
        yield named


def _only(redis_url: str, database_url: str, only: str | None) -> Chosen:
    return Chosen(
        redis_url=None if only == "postgres" else redis_url,
        database_url=None if only == "redis" else database_url,
    )
