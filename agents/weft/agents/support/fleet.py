"""The seven agents of the fleet, made of what they need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from weft import embedded
from weft.agents.contract import contract_of
from weft.agents.support.escalation import EscalationAgent
from weft.agents.support.mailbox import MailboxAgent
from weft.agents.support.outgoing import Sends
from weft.agents.support.quality import QualityAgent
from weft.agents.support.research import ResearchAgent
from weft.agents.support.solution import SolutionAgent
from weft.agents.support.supervisor import Fleet, SupervisorAgent
from weft.agents.support.triage import TriageAgent
from weft.postgres import Database
from weft.support.v1 import (
    escalation_pb2_grpc,
    quality_pb2_grpc,
    research_pb2_grpc,
    solution_pb2_grpc,
    triage_pb2_grpc,
)

SCHEMA = "support"
SQL = "weft.agents.support.sql"


async def database(url: str) -> Database:
    """The fleet's schema in a PostgreSQL database, brought up to date. Close it by `close()`."""
    opened = await Database.connect(url, schema=SCHEMA)
    try:
        await opened.migrate(package=SQL)
    except BaseException:
        await opened.close()
        raise
    return opened


@asynccontextmanager
async def fleet(
    *,
    database_url: str,
    redis_url: str,
    stub: Callable[[Any], Any],
    send: Sends | None = None,
    only: Collection[str] = (),
) -> AsyncIterator[Sequence[object]]:
    """The servicers of the fleet, ready to serve; close them by leaving the context.

    Args:
        database_url: of PostgreSQL; the fleet keeps to the schema `support`.
        redis_url: of Redis, where conversations are.
        stub: makes a stub of the agent whose generated Stub class it is given.
        send: sends durable messages; None: there is no broker, and the fleet does without mails and reminders.
        only: names of the agents wanted; empty: all seven.
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
            send=send,
        )
        triage, research = TriageAgent(store), ResearchAgent(store)
        stack.push_async_callback(triage.close)
        servicers = (
            SupervisorAgent(led, client),
            triage,
            research,
            SolutionAgent(),
            QualityAgent(),
            EscalationAgent(store, send),
            MailboxAgent(store, send),
        )
        wanted = [s for s in servicers if not only or contract_of(s).agent in only]
        if triage in wanted:
            triage.warm()
        if research in wanted:
            await research.import_shipped()
        yield wanted
