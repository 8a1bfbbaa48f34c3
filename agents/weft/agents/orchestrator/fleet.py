"""The orchestrator, made of what it needs: the agent `orchestrator` for a weft.agents.Host, and a worker beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import grpc

from weft.agents.orchestrator.approvals.desk import Desk
from weft.agents.orchestrator.approvals.queue import Queue
from weft.agents.orchestrator.compiling import WorldCompiler
from weft.agents.orchestrator.drawing.drawer import Drawer
from weft.agents.orchestrator.engine.bells import CHANNEL, Bells
from weft.agents.orchestrator.engine.calls import Calls
from weft.agents.orchestrator.engine.directory import Directory
from weft.agents.orchestrator.engine.driver import Means
from weft.agents.orchestrator.engine.figures import Figures
from weft.agents.orchestrator.engine.log import Log
from weft.agents.orchestrator.engine.plans import Compiler, Plans
from weft.agents.orchestrator.engine.retention import Retention
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.engine.store import RunStore
from weft.agents.orchestrator.engine.worker import Worker
from weft.agents.orchestrator.runs import RunLimits, Runs
from weft.agents.orchestrator.service import Draws, OrchestratorService
from weft.agents.orchestrator.spending import Purses, ledger_of
from weft.agents.orchestrator.workflows import WorkflowContract, Workflows
from weft.postgres import Database, Listener
from weft.rpc.signing import Signer
from weft.telemetry import Telemetry, probe
from weft.webhooks import Sender, SenderSettings, Targets

SCHEMA = "orchestrator"
SQL = "weft.agents.orchestrator.sql"

Channels = Callable[[str], grpc.aio.Channel]
"""The channel to an agent by its name, as `weft.agents.Mesh.channel`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """How an orchestrator does."""

    worker: WorkerSettings = field(default_factory=WorkerSettings)
    """How runs are carried out."""
    limits: RunLimits = field(default_factory=RunLimits)
    """What callers may ask for."""
    keep: timedelta | None = timedelta(days=90)
    """How long runs are kept after their end, with their events and approvals and what they spent; None: for ever."""
    webhooks: SenderSettings = field(default_factory=SenderSettings)
    """How webhooks are sent."""
    webhook_networks: Sequence[str] = ()
    """Networks that are not public, such as "10.1.0.0/16", to which webhooks may go all the same."""
    contracts: Mapping[str, WorkflowContract] = field(default_factory=dict)
    """What is asked of every version of workflows of some names."""


async def database(url: str) -> Database:
    """The orchestrator's schema in a PostgreSQL database, brought up to date. Close it by `close()`."""
    return await Database.opened(url, SCHEMA, SQL)


@contextlib.asynccontextmanager
async def orchestrator(
    *,
    database_url: str,
    registry: grpc.aio.Channel,
    channel: Channels,
    compiler: Callable[[Database], Compiler] | None = None,
    draws: Callable[[Runs, Workflows, Plans], Draws] | None = None,
    signer: Signer | None = None,
    settings: OrchestratorSettings | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[OrchestratorService]:
    """The servicer, ready to serve, while a worker carries runs out; both end when the context is left.

    Args:
        database_url: of PostgreSQL; the orchestrator keeps to the schema `orchestrator`, and what runs spend is in `weft_models`.
        registry: a channel to the registry, where agents are found that workflows do not name.
        channel: channels to agents.
        compiler: makes what checks and compiles workflows; None: a WorldCompiler.
        draws: makes what draws them; None: a Drawer.
        signer: signs the identities in whose name runs call; None: they go as they came, and expire.
        settings: how it does.
        telemetry: where runs are counted; None: nowhere.

    Raises:
        ValueError: of `webhook_networks`, one is not a network.
        rpc.Error: the database cannot be opened.
    """
    settings = settings or OrchestratorSettings()
    targets = Targets(settings.webhook_networks)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(await database(database_url))
        bells = Bells()
        plans = Plans(store, compiler(store) if compiler else WorldCompiler(store, registry))
        workflows = Workflows(store, plans.compiler, settings.contracts)
        log = Log(store, bells)
        worker: Worker | None = None
        listener = Listener(database_url, CHANNEL, bells.hear)
        sender = Sender(Queue(store), bells.webhook, targets, settings.webhooks)
        await stack.enter_async_context(_doing(listener.run(), "listener of runs"))
        await stack.enter_async_context(_doing(sender.run(), "webhooks of approvals"))
        await stack.enter_async_context(log.writing())
        purses = Purses(await stack.enter_async_context(await ledger_of(database_url)), store)
        retention = Retention(store, purses, settings.keep)
        await stack.enter_async_context(_doing(retention.run(), "retention of runs"))
        figures = None
        if telemetry is not None:
            figures = Figures(store, telemetry.metrics)
            await stack.enter_async_context(_doing(figures.run(), "figures of runs"))
            asking = probe(telemetry.metrics, "postgres", store.ping)
            await stack.enter_async_context(_doing(asking, "probe of the database"))
        if settings.worker.at_once:
            means = Means(
                store=RunStore(store),
                log=log,
                bells=bells,
                plans=plans,
                calls=Calls(channel, Directory(registry).find, signer=signer),
                purses=purses,
                settings=settings.worker,
                figures=figures,
            )
            worker = Worker(means)
            await stack.enter_async_context(_doing(worker.run(), "worker of runs"))
        runs = Runs(store, bells, plans, settings.limits, worker)
        yield OrchestratorService(
            workflows=workflows,
            runs=runs,
            purses=purses,
            desk=Desk(store, bells, plans),
            plans=plans,
            draws=(draws or Drawer)(runs, workflows, plans),
        )


@contextlib.asynccontextmanager
async def _doing(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
