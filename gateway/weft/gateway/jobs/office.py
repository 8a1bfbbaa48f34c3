"""All about jobs that one gateway process has: the store, a runner, the service, webhooks. The composition of this room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from weft.gateway.jobs.asked import Asking, JobLimits
from weft.gateway.jobs.bells import CHANNEL, Bells
from weft.gateway.jobs.deliveries import Deliveries
from weft.gateway.jobs.direct import Direct
from weft.gateway.jobs.figures import Figures
from weft.gateway.jobs.own_agent import AGENT, OwnAgent
from weft.gateway.jobs.runner import Runner, RunnerSettings
from weft.gateway.jobs.service import JobService
from weft.gateway.jobs.shown import FindMethod, Shown
from weft.gateway.jobs.store import Jobs
from weft.gateway.jobs.webhooks import Form, Sender, SenderSettings, Targets
from weft.gateway.upstream import Upstream
from weft.postgres import Database, Listener
from weft.rpc.signing import Signer
from weft.telemetry import Instruments
from weft.v1.identity_pb2 import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """How a gateway does with jobs."""

    limits: JobLimits = field(default_factory=JobLimits)
    """What callers may ask for."""
    runner: RunnerSettings = field(default_factory=RunnerSettings)
    """How jobs are run."""
    sender: SenderSettings = field(default_factory=SenderSettings)
    """How webhooks are sent."""
    webhook_networks: Sequence[str] = ()
    """Networks that are not public, such as "10.1.0.0/16", to which webhooks may go all the same."""


class Office:
    """Enter it to have jobs served; within `working` they are run.

    Args:
        database: with the queries of weft.gateway.sql.
        url: of the same database, to listen on.
        find: the method of a path, as it is known now.
        metrics: where jobs are counted; None: nowhere.

    Raises:
        ValueError: of `webhook_networks`, one is not a network.
    """

    def __init__(
        self,
        database: Database,
        url: str,
        find: FindMethod,
        settings: JobSettings,
        metrics: Instruments | None = None,
    ) -> None:
        self._figures = Figures(database, metrics)
        self._database = database
        self._settings = settings
        self._bells = Bells()
        self._listener = Listener(url, CHANNEL, self._bells.hear)
        self.targets = Targets(settings.webhook_networks)
        self.jobs = Jobs(
            database,
            self._bells,
            most_open=settings.limits.most_open,
            on_end=self._figures.ended,
        )
        self.asking = Asking(self.jobs, self.targets, settings.limits)
        deliveries = Deliveries(database, self._bells)
        self._agent = OwnAgent(JobService(self.jobs, deliveries, Shown(find)))
        self.forms: dict[str, Form] = {}
        """What subscribers are told, by the kind of a job; doors add theirs."""
        self._stack = contextlib.AsyncExitStack()

    @property
    def own(self) -> Mapping[str, str]:
        """Targets of the agents that are served here, by name."""
        return {AGENT: self._agent.target}

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._agent)
        await self._stack.enter_async_context(_doing(self._listener.run(), "listener of jobs"))
        return self

    @contextlib.asynccontextmanager
    async def working(
        self,
        upstream: Upstream,
        signer: Signer | None,
        on_spent: Callable[[str, Identity, float], None] = lambda *_: None,
    ) -> AsyncIterator[Direct]:
        """Runs jobs and sends webhooks meanwhile; yields how doors begin jobs of their own here.

        Args:
            upstream: the way to agents.
            signer: signs the identities that jobs are run with; None: they are not signed.
            on_spent: is told what jobs cost (see `Runner`).
        """
        settings = self._settings
        runner = Runner(
            self._database,
            upstream,
            self._bells,
            signer=signer,
            settings=settings.runner,
            on_end=self._figures.ended,
            on_spent=on_spent,
        )
        sender = Sender(
            self._database,
            self._bells,
            self.targets,
            settings.sender,
            forms=self.forms,
            on_sent=self._figures.sent,
        )
        direct = Direct(self._database, self.jobs, runner, on_end=self._figures.ended)
        async with (
            _doing(self._figures.run(), "figures of jobs"),
            _doing(sender.run(), "webhooks"),
            _doing(runner.run(), "jobs"),
        ):
            try:
                yield direct
            finally:
                await direct.close()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def _doing(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
