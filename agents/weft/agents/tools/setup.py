"""Tools as the settings of the process say. Credentials are read here, at its edge, and nowhere else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta

import httpx

from weft import config
from weft.agents.tools.calculator import calculator
from weft.agents.tools.fetch import FetchSettings, fetch
from weft.agents.tools.query import Query, QuerySettings
from weft.agents.tools.search import Engine, SearXNG, Tavily, web_search
from weft.agents.tools.tool import Rate, Tool

_SEARCHING = 15.0  # seconds
_TIMED = frozenset({"fetch", "query"})  # their time is in their own settings


@contextlib.asynccontextmanager
async def tools_of(
    settings: config.Settings, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Mapping[str, Tool]]:
    """The tools of a process by name, closed when the block ends: `[tools.NAME]` of the settings.

    Raises:
        SettingError: a setting cannot be used.
    """
    env = os.environ if environ is None else environ
    async with contextlib.AsyncExitStack() as stack:
        made = {}
        for name, given in settings.tools.items():
            try:
                made[name] = await _tool(given, env, stack)
            except ValueError as wrong:
                raise config.SettingError(f"tools: {name}: {wrong}") from None
        yield made


async def _tool(
    given: config.ToolSetting, environ: Mapping[str, str], stack: contextlib.AsyncExitStack
) -> Tool:
    credential = config.read_credential(given.key_env, given.key_file, environ)
    match given.what:
        case "fetch":
            tool = _fetch(given)
        case "query":
            asking = QuerySettings(tables=given.tables, functions=given.functions, rows=given.rows)
            if given.timeout:
                asking = replace(asking, time=_time(given))
            opened = Query.connected(given.url, asking, password=credential)
            tool = (await stack.enter_async_context(opened)).tool(about=given.about)
        case "tavily" | "searxng":
            client = httpx.AsyncClient(timeout=given.timeout or _SEARCHING)
            tool = web_search(_engine(given, await stack.enter_async_context(client), credential))
        case _:
            tool = calculator()
    if given.timeout and given.what not in _TIMED:
        tool = replace(tool, timeout=_time(given))
    rate = Rate(per_second=given.per_second, burst=given.burst) if given.per_second else None
    return replace(tool, name=given.name, scopes=given.scopes or None, rate=rate)


def _fetch(given: config.ToolSetting) -> Tool:
    reading = FetchSettings(
        hosts=given.hosts, networks=given.networks, ports=given.ports, plaintext=given.plaintext
    )
    return fetch(replace(reading, time=_time(given)) if given.timeout else reading)


def _engine(given: config.ToolSetting, client: httpx.AsyncClient, key: str) -> Engine:
    if given.what == "searxng":
        return SearXNG(client, given.url, language=given.language, categories=given.categories)
    if given.url:
        return Tavily(client, key, depth=given.depth, url=given.url)
    return Tavily(client, key, depth=given.depth)


def _time(given: config.ToolSetting) -> timedelta:
    return timedelta(seconds=given.timeout)
