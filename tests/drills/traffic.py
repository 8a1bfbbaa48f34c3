"""A little of everything a mesh does, so that every panel has something to show."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import httpx
from google.protobuf import json_format
from tests.drills.mesh import Mesh

from weft import rpc
from weft.echo.v1 import echo_pb2
from weft.v1 import broker_pb2, message_pb2, orchestrator_pb2, workflow_pb2

_PAUSE = 0.25  # seconds between two of a kind
_NUMBERS = itertools.count()


def say(agent: str = "echo", **fields: str) -> dict[str, Any]:
    """A node of a workflow that has an agent say something."""
    call = {"agent": agent, "method": "weft.echo.v1.EchoService/Say"}
    return {"id": "say", "call": {**call, "fields": {"by_path": {"text": "'drill'", **fields}}}}


def workflow(name: str, node: dict[str, Any]) -> workflow_pb2.WorkflowSpec:
    """A workflow of one node."""
    whole = {"name": name, "input_type": "weft.echo.v1.SayRequest", "nodes": [node]}
    return json_format.ParseDict(whole, workflow_pb2.WorkflowSpec())


def begun(subject: workflow_pb2.WorkflowSpec | str, text: str = "begin") -> Any:
    """A request that begins a run."""
    message = echo_pb2.SayRequest(text=text)
    given = workflow_pb2.TypedMessage(
        type=message.DESCRIPTOR.full_name, binary=message.SerializeToString()
    )
    if isinstance(subject, str):
        return orchestrator_pb2.StartRunRequest(workflow=subject, input=given)
    return orchestrator_pb2.StartRunRequest(spec=subject, input=given)


def message(queue: str, text: str = "drill") -> broker_pb2.PublishRequest:
    """A message to a queue."""
    return broker_pb2.PublishRequest(
        message=message_pb2.Message(
            id=f"drill-{next(_NUMBERS)}", sender="drill", recipient=queue, payload=text.encode()
        )
    )


@contextlib.asynccontextmanager
async def repeated(
    *works: Callable[[], Awaitable[object]], pause: float = _PAUSE
) -> AsyncIterator[None]:
    """Does things again and again, each at its own pace; what fails is done again as well."""

    async def again(work: Callable[[], Awaitable[object]]) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, rpc.Error, httpx.HTTPError):
                await work()
            await asyncio.sleep(pause)

    tasks = [asyncio.create_task(again(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for failed in ended:
            if not isinstance(failed, asyncio.CancelledError):
                raise failed if isinstance(failed, BaseException) else AssertionError(failed)


@contextlib.asynccontextmanager
async def usual(mesh: Mesh) -> AsyncIterator[None]:
    """What a mesh in good health has to do."""
    async with (
        mesh.http() as http,
        mesh.agent("thinker") as thinker,
        mesh.orchestrator() as orchestrator,
        mesh.broker() as broker,
    ):
        await orchestrator.SubmitWorkflow(
            orchestrator_pb2.SubmitWorkflowRequest(spec=workflow("usual", say())),
            wait_for_ready=True,
        )

        async def by_message() -> None:
            # The queue of the agent `echo`, whose skill takes messages.
            skill = message("echo")
            skill.message.method = "/weft.echo.v1.EchoService/Say"
            skill.message.payload = echo_pb2.SayRequest(text="hello").SerializeToString()
            await broker.Publish(skill)

        async with repeated(
            lambda: http.post("/v1/echo:say", json={"text": "hello"}),
            lambda: http.post(
                "/v1/echo:say", json={"text": "job"}, headers={"prefer": "respond-async"}
            ),
            lambda: http.post("/v1/echo:repeat", json={"text": "hello", "count": 3}),
            lambda: thinker.Say(echo_pb2.SayRequest(text="cheap")),
            lambda: orchestrator.StartRun(begun("usual")),
            by_message,
        ):
            yield
