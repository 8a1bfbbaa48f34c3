"""The seven agents of the fleet, made of what they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from weft import embedded
from weft.agents import memory
from weft.agents.contract import contract_of
from weft.agents.llm import Models
from weft.agents.memory.embedding import Embedder
from weft.agents.support.escalation import EscalationAgent
from weft.agents.support.mailbox import MailboxAgent
from weft.agents.support.outgoing import Sends
from weft.agents.support.quality import QualityAgent
from weft.agents.support.research import ResearchAgent
from weft.agents.support.solution import SolutionAgent, WritingComposer
from weft.agents.support.supervisor import Fleet, SupervisorAgent, pipeline
from weft.agents.support.triage import TriageAgent
from weft.postgres import Database
from weft.support.v1 import (
    escalation_pb2_grpc,
    quality_pb2_grpc,
    research_pb2_grpc,
    solution_pb2_grpc,
    triage_pb2_grpc,
)
from weft.v1 import orchestrator_pb2_grpc

SCHEMA = "support"
SQL = "weft.agents.support.sql"


async def database(url: str) -> Database:
    """The fleet's schema in a PostgreSQL database, brought up to date. Close it by `close()`."""
    return await Database.opened(url, SCHEMA, SQL, memory.SQL)


@asynccontextmanager
async def fleet(
    *,
    database_url: str,
    redis_url: str,
    stub: Callable[[Any], Any],
    send: Sends | None = None,
    orchestrated: bool = False,
    embedder: Embedder | None = None,
    only: Collection[str] = (),
    models: Models | None = None,
) -> AsyncIterator[Sequence[object]]:
    """The servicers of the fleet, ready to serve; close them by leaving the context.

    Args:
        database_url: of PostgreSQL; the fleet keeps to the schema `support`.
        redis_url: of Redis, where conversations are.
        stub: makes a stub of the agent whose generated Stub class it is given.
        send: sends durable messages; None: there is no broker, and the fleet does without mails and reminders.
        orchestrated: whether an orchestrator runs the pipeline, whenever one is in service: durably, in the version that
            users stored, with people who decide. Else, and when none is, the supervisor runs the version that ships.
        embedder: what makes vectors, so that articles are found by meaning, too; None: by their words only.
        only: names of the agents wanted; empty: all seven.
        models: those of "support-solution" and "support-triage" write and judge; None, and where they have none: rules do.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await database(database_url))
        client = await stack.enter_async_context(embedded.redis_client(redis_url))
        led = Fleet(
            triage=stub(triage_pb2_grpc.TriageServiceStub),
            research=stub(research_pb2_grpc.ResearchServiceStub),
            solution=stub(solution_pb2_grpc.SolutionServiceStub),
            quality=stub(quality_pb2_grpc.QualityServiceStub),
            escalation=stub(escalation_pb2_grpc.EscalationServiceStub),
            orchestrator=stub(orchestrator_pb2_grpc.OrchestratorServiceStub),
            send=send,
        )
        supervisor = SupervisorAgent(led, client, orchestrated=orchestrated)
        stack.push_async_callback(supervisor.close)
        writer, judge = (
            None if models is None else models.get(name)
            for name in ("support-solution", "support-triage")
        )
        triage, research = TriageAgent(store, judge), ResearchAgent(store, embedder)
        stack.push_async_callback(triage.close)
        servicers = (
            supervisor,
            triage,
            research,
            SolutionAgent(None if writer is None else WritingComposer(writer)),
            QualityAgent(),
            EscalationAgent(store, send),
            MailboxAgent(store, send),
        )
        wanted = [s for s in servicers if not only or contract_of(s).agent in only]
        if supervisor in wanted:
            await asyncio.to_thread(pipeline.compiled)
        if triage in wanted:
            triage.warm()
        if research in wanted:
            await stack.enter_async_context(research.kept())
        yield wanted
