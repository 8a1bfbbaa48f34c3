"""The orchestrator as this command hosts it, and as commands ask it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc

from weft.cli import connect, failures, identities
from weft.v1 import orchestrator_pb2 as pb
from weft.v1 import orchestrator_pb2_grpc

if TYPE_CHECKING:
    from weft.agents.orchestrator.fleet import Channels, OrchestratorSettings
    from weft.agents.orchestrator.service import OrchestratorService
    from weft.config import Settings
    from weft.rpc.signing import Signer
    from weft.telemetry import Telemetry
    from weft.v1.identity_pb2 import Identity
    from weft.v1.orchestrator_pb2_grpc import OrchestratorServiceAsyncStub

AGENT = "orchestrator"
_PAGE = 500
_WATCHED = 3_600.0  # seconds of a call that watches; it is made again
_PAUSE = 0.5  # seconds before a watcher that lost its orchestrator looks again
_TRIES = 40
_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
}


@contextlib.asynccontextmanager
async def served(
    settings: Settings, *, registry: grpc.aio.Channel, channel: Channels, telemetry: Telemetry
) -> AsyncIterator[OrchestratorService]:
    """An orchestrator as the settings say.

    Raises:
        WrongSetting: one of them cannot be used.
    """
    from weft.agents.orchestrator.fleet import orchestrator

    async with contextlib.AsyncExitStack() as stack:
        with failures.settings_checked("WEFT_ORCHESTRATOR_WEBHOOK_NETWORKS"):
            servicer = await stack.enter_async_context(
                orchestrator(
                    database_url=settings.database_url,
                    registry=registry,
                    channel=channel,
                    signer=_signer(settings),
                    settings=_orchestrator_settings(settings),
                    telemetry=telemetry,
                )
            )
        yield servicer


def _orchestrator_settings(settings: Settings) -> OrchestratorSettings:
    from weft.agents.orchestrator.engine.settings import WorkerSettings
    from weft.agents.orchestrator.fleet import OrchestratorSettings
    from weft.agents.orchestrator.runs import RunLimits
    from weft.agents.support.supervisor import pipeline

    networks = [each.strip() for each in settings.orchestrator_webhook_networks.split(",")]
    return OrchestratorSettings(
        worker=WorkerSettings(
            at_once=settings.orchestrator_at_once, lease=settings.orchestrator_lease
        ),
        limits=RunLimits(most_open=settings.orchestrator_open),
        keep=settings.orchestrator_keep if settings.orchestrator_keep > timedelta(0) else None,
        contracts={pipeline.NAME: pipeline.CONTRACT},
        webhook_networks=[each for each in networks if each],
    )


def _signer(settings: Settings) -> Signer | None:
    """What signs the identities of runs anew: only where they were believed when they came."""
    if not (settings.identity_key and settings.identity_trust):
        return None
    return identities.signer(settings)


@contextlib.asynccontextmanager
async def connected(settings: Settings, person: str = "") -> AsyncIterator[Orchestrator]:
    """The orchestrator of a mesh, called as a person; empty: whoever runs the command.

    Raises:
        Failure: there is none, or nothing can be reached; says what to do.
    """
    async with connect.registry(settings.registry) as registry:
        try:
            await registry.agent(AGENT)
        except failures.Failure as failed:
            raise failures.Failure(
                "No orchestrator is in service. Start everything with `weft up`, or one with "
                "`weft agents serve orchestrator`."
            ) from failed
    identity = identities.person(settings, person) if person else identities.operator(settings)
    async with connect.to_agent(settings.registry, AGENT, identity, zone=settings.zone) as channel:
        yield Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceStub(channel), identity)


class Orchestrator:
    """What commands ask an orchestrator."""

    def __init__(self, stub: OrchestratorServiceAsyncStub, identity: Identity | None) -> None:
        self.stub = stub
        self.identity = identity

    async def runs(self, request: pb.ListRunsRequest, most: int) -> list[pb.Run]:
        """Runs, the newest first."""
        found: list[pb.Run] = []
        while len(found) < most:
            request.page_size = min(_PAGE, most - len(found))
            page = await self.stub.ListRuns(request)
            found += page.runs
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return found

    async def approvals(self, request: pb.ListApprovalsRequest) -> list[pb.Approval]:
        """All approvals that are asked for."""
        found: list[pb.Approval] = []
        request.page_size = _PAGE
        while True:
            page = await self.stub.ListApprovals(request)
            found += page.approvals
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    async def watch(self, run: str, after: int = 0) -> AsyncIterator[pb.RunEvent]:
        """What happens in a run, until it has ended; over restarts of the orchestrator."""
        failed = 0
        while True:
            request = pb.WatchRunRequest(id=run, after=after)
            try:
                async for response in self.stub.WatchRun(request, timeout=_WATCHED):
                    failed, after = 0, response.event.number
                    yield response.event
            except grpc.aio.AioRpcError as lost:
                failed = await _again(lost, failed)
            else:
                return

    async def watch_approvals(self, *, mine: bool) -> AsyncIterator[pb.Approval]:
        """Approvals that are open, then each that is asked for or ends."""
        failed = 0
        while True:
            request = pb.WatchApprovalsRequest(mine=mine)
            try:
                async for response in self.stub.WatchApprovals(request, timeout=_WATCHED):
                    failed = 0
                    yield response.approval
            except grpc.aio.AioRpcError as lost:
                failed = await _again(lost, failed)


async def _again(lost: grpc.aio.AioRpcError, failed: int) -> int:
    """Waits before a call is made again; raises what cannot be helped."""
    if lost.code() not in _LOST or failed >= _TRIES:
        raise lost
    await asyncio.sleep(_PAUSE)
    return failed + 1


def typed(text: str, kind: str = "") -> Any:
    """JSON that a person gave, as the orchestrator takes it.

    Raises:
        WrongSetting: it is none.
    """
    from google.protobuf import json_format

    from weft.cli.payloads import one_document
    from weft.v1.workflow_pb2 import TypedMessage

    made = TypedMessage(type=kind)
    json_format.ParseDict(one_document(text, "message"), made.json)
    return made
