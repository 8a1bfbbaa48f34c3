"""Models as the settings of the process say. Credentials are read here, at its edge, and nowhere else."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from weft import config
from weft.agents.llm.endpoints import PRESETS, Endpoint
from weft.agents.llm.models import ModelEntry, Models
from weft.agents.llm.money import Books, Limit
from weft.agents.llm.money.ledger import MemoryLedger
from weft.agents.llm.money.postgres import SCHEMA, SQL, PostgresLedger
from weft.agents.llm.prices import Prices
from weft.agents.llm.way import ModelSettings
from weft.postgres import Database
from weft.telemetry import Telemetry

log = logging.getLogger("weft.agents.llm")

_SHARED = frozenset({"run", "agent", "tenant"})
_USUAL_KEY = "ANTHROPIC_API_KEY"  # of the endpoint `claude`, where settings name no other


@contextlib.asynccontextmanager
async def models_of(
    settings: config.Settings,
    telemetry: Telemetry | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Models]:
    """The models of a process, closed when the block ends. Without `[models]` in the settings there is none.

    What is spent is counted in PostgreSQL where `database_url` names one, for all processes together, else in this
    process alone.

    Raises:
        SettingError: a setting cannot be used.
        rpc.Unavailable: the database cannot be reached.
    """
    env = os.environ if environ is None else environ
    entries = entries_of(settings, env)
    limits = {name: _limit(each) for name, each in settings.budgets.items()}
    async with contextlib.AsyncExitStack() as stack:
        ledger: MemoryLedger | PostgresLedger = MemoryLedger()
        if entries and settings.database_url:
            database = await Database.opened(settings.database_url, SCHEMA, SQL)
            ledger = PostgresLedger(await stack.enter_async_context(database))
        elif entries and _SHARED & {name.partition(":")[0] for name in limits}:
            log.warning("budgets of models hold in this process alone: there is no database_url")
        models = Models(
            entries, books=Books(ledger, limits), prices=_prices(settings), telemetry=telemetry
        )
        stack.push_async_callback(models.close)
        yield models


def entries_of(settings: config.Settings, environ: Mapping[str, str]) -> dict[str, ModelEntry]:
    """The models that settings name.

    Raises:
        SettingError: one is at an endpoint, or falls back to a model, that is not there; or there is no credential.
    """
    found: dict[str, ModelEntry] = {}
    endpoints: dict[str, Endpoint] = {}
    for name, choice in settings.models.items():
        at = choice.endpoint
        if at not in endpoints:
            described = settings.endpoints.get(at)
            if described is None and at not in PRESETS:
                raise config.SettingError(f"models: {name}: there is no endpoint {at!r}")
            endpoints[at] = _endpoint(at, described, environ)
        for other in choice.fallback:
            if other not in settings.models or other == name:
                raise config.SettingError(f"models: {name}: there is no other model {other!r}")
        found[name] = ModelEntry(
            endpoint=endpoints[at],
            model=choice.model,
            fallback=choice.fallback,
            retries=choice.retries,
            settings=ModelSettings(
                max_tokens=choice.max_tokens,
                timeout=timedelta(seconds=choice.timeout),
                temperature=None if choice.temperature < 0 else choice.temperature,
                effort=choice.effort,
                cache=choice.cache,
            ),
        )
    return found


def _endpoint(
    name: str, given: config.ModelEndpoint | None, environ: Mapping[str, str]
) -> Endpoint:
    kind = given.kind if given is not None else name
    made = replace(PRESETS[kind], name=name)
    given = given or config.ModelEndpoint(name=name, kind=kind)  # type: ignore[arg-type]  # it is one of them
    return replace(
        made,
        url=given.url or made.url,
        key=_key(given, environ),
        key_header=given.key_header,
        structured=given.structured or made.structured,
        idle=timedelta(seconds=given.idle) if given.idle else made.idle,
    )


def _key(given: config.ModelEndpoint, environ: Mapping[str, str]) -> str:
    variable = given.key_env
    # The key of Anthropic is sent to Anthropic and to nobody else.
    if given.kind == "claude" and not (variable or given.key_file or given.url):
        variable = _USUAL_KEY if environ.get(_USUAL_KEY) else ""
    try:
        return config.read_credential(variable, given.key_file, environ)
    except ValueError as wrong:
        raise config.SettingError(f"endpoints: {given.name}: {wrong}") from None


def _limit(given: config.ModelBudget) -> Limit:
    return Limit(tokens=given.tokens or None, usd=given.usd or None, per=given.per)


def _prices(settings: config.Settings) -> Prices:
    if not settings.model_prices:
        return Prices.shipped()
    try:
        return Prices.load(Path(settings.model_prices))
    except ValueError as wrong:
        raise config.SettingError(f"model_prices: {wrong}") from wrong
