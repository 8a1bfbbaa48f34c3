"""A2A for benchmarks/doors.py: the request that is made, and the server that the SDK makes of an agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

import uvicorn
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import a2a_pb2 as pb
from google.protobuf import json_format, struct_pb2
from starlette.applications import Starlette

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until

SKILL = "weft.echo.v1.EchoService/Say"
TEXT = "hello"
_EXTENSION = "https://weft.dev/extensions/typed-skills/v1"


def request(address: str, path: str) -> bytes:
    """SendMessage by JSON-RPC, as bytes of HTTP."""
    message = {
        "messageId": "m",
        "role": "ROLE_USER",
        "parts": [{"data": {"text": TEXT}}],
        "metadata": {_EXTENSION: {"skill": SKILL}},
    }
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
    ).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
        f"a2a-version: 1.0\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answered(body: bytes) -> bool:
    """Whether a task came back that is done."""
    task = json.loads(body).get("result", {}).get("task", {})
    return bool(
        task.get("status", {}).get("state") == "TASK_STATE_COMPLETED"
        and task["artifacts"][0]["parts"][0]["data"]["text"] == TEXT
    )


class _Echo(AgentExecutor):
    """Calls the agent with a generated stub, or without one answers itself."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None
        task = context.current_task or new_task_from_user_message(message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        given = json_format.MessageToDict(message.parts[0].data)
        said = json_format.ParseDict(given, echo_pb2.SayRequest())
        answer = await self._stub.Say(said) if self._stub else echo_pb2.SayResponse(text=said.text)
        data = json_format.ParseDict(json_format.MessageToDict(answer), struct_pb2.Value())
        await updater.add_artifact([pb.Part(data=data)], name="Say")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


async def serve(agent: str = "") -> None:
    """The SDK's own server, with tasks in memory."""
    async with contextlib.AsyncExitStack() as stack:
        stub: Any = None
        if agent:
            channel = await stack.enter_async_context(rpc.Channel(agent))
            stub = echo_pb2_grpc.EchoServiceStub(channel)
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        card = pb.AgentCard(
            name="echo",
            description="Says back.",
            version="1",
            supported_interfaces=[
                pb.AgentInterface(
                    url=f"http://{address}/", protocol_binding="JSONRPC", protocol_version="1.0"
                )
            ],
            capabilities=pb.AgentCapabilities(streaming=True),
            default_input_modes=["application/json"],
            default_output_modes=["application/json"],
            skills=[pb.AgentSkill(id=SKILL, name="Say", description="Says back.", tags=["echo"])],
        )
        handler = DefaultRequestHandler(
            agent_executor=_Echo(stub), task_store=InMemoryTaskStore(), agent_card=card
        )
        app = Starlette(
            routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")]
        )
        config = uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            access_log=False,
            timeout_keep_alive=120,
            log_level="warning",
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await wait_until(lambda: server.started)
        print(address, flush=True)
        await serving
