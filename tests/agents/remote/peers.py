"""Servers of the SDKs, to be remotes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Place(BaseModel):
    lat: float
    lon: float


class Forecast(BaseModel):
    city: str
    days: list[int]
    place: Place | None = None


class Told:
    """What a peer saw."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.running = 0
        self.messages: list[pb.Message] = []
        self.headers: list[dict[str, str]] = []


def weather(told: Told) -> MCPServer:
    """An MCP server."""
    server = MCPServer("weather", instructions="Knows the weather.")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def get_forecast(city: str, days: int = 3, place: Place | None = None) -> Forecast:
        """Forecast for a city."""
        return Forecast(city=city, days=list(range(days)), place=place)

    @server.tool(structured_output=False)
    def describe(city: str) -> str:
        """Describes a city."""
        return f"{city} is a city."

    @server.tool()
    def fail(why: str) -> str:
        """Fails."""
        raise ToolError(why)

    @server.tool(structured_output=False)
    def pour(bytes: int) -> str:  # noqa: A002 the argument's name is the point
        """Answers with so many bytes."""
        return "x" * bytes

    @server.tool(structured_output=False)
    async def wait(seconds: float) -> str:
        """Waits."""
        told.running += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            told.cancelled += 1
            raise
        finally:
            told.running -= 1
        return "waited"

    @server.tool(structured_output=False)
    async def learn(name: str, ctx: Context[Any, Any]) -> str:
        """Has one tool more from then on."""

        def new(text: str) -> str:
            return text

        server.add_tool(new, name=name, structured_output=False)
        await ctx.notify_tools_changed()
        if ctx.session.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            await ctx.session.send_tool_list_changed()
        return "learned"

    return server


def older(app: Any) -> Any:
    """The same server without the newest protocol."""

    async def without(scope: Any, receive: Any, send: Any) -> None:
        if dict(scope.get("headers", ())).get(b"mcp-method") == b"server/discover":
            await JSONResponse({}, 400)(scope, receive, send)
            return
        await app(scope, receive, send)

    return without


def heard(app: Any, told: Told) -> Any:
    """The same server, whose requests' headers are noted."""

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            told.headers.append({k.decode(): v.decode() for k, v in scope["headers"]})
        await app(scope, receive, send)

    return noting


class Crude:
    """An MCP server that says what it is told to say. `answers`: by method, a result or a response."""

    def __init__(self, tools: list[Any]) -> None:
        self.answers: dict[str, Any] = {"tools/list": {"tools": tools}}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        asked = json.loads(await request.body() or b"{}")
        method, number = asked.get("method", ""), asked.get("id")
        if method == "initialize":
            answer: Any = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "crude", "version": "1"},
            }
        else:
            answer = self.answers.get(method, {} if method == "ping" else None)
        response: Any = Response(status_code=202)
        if isinstance(answer, Response):
            response = answer
        elif answer is not None:
            response = JSONResponse({"jsonrpc": "2.0", "id": number, "result": answer})
        elif number is not None:
            error = {"code": -32601, "message": "Method not found"}
            response = JSONResponse({"jsonrpc": "2.0", "id": number, "error": error})
        await response(scope, receive, send)


class Clerk(AgentExecutor):
    """An A2A agent: does what the first word of a message says."""

    def __init__(self, told: Told) -> None:
        self._told = told

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None
        self._told.messages.append(message)
        text = context.get_user_input()
        word, _, rest = text.partition(" ")
        if word == "say":
            reply = pb.Message(message_id="r", role=pb.ROLE_AGENT, parts=[pb.Part(text=rest)])
            await event_queue.enqueue_event(reply)
            return
        task = context.current_task
        if task is None:
            task = new_task_from_user_message(message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        said = [pb.Part(text=rest)]
        match word:
            case "ask":
                await updater.requires_input(updater.new_agent_message(said))
            case "sign":
                await updater.requires_auth(updater.new_agent_message(said))
            case "refuse":
                await updater.reject(updater.new_agent_message(said))
            case "fail":
                await updater.failed(updater.new_agent_message(said))
            case "wait":
                await asyncio.sleep(60)
            case "count":
                for number in range(int(rest)):
                    await updater.add_artifact(
                        [pb.Part(text=str(number))],
                        artifact_id="a",
                        append=number > 0,
                        last_chunk=number + 1 == int(rest),
                    )
                await updater.complete()
            case _:
                data = ParseDict({"words": text.split(), "parts": len(message.parts)}, Value())
                await updater.add_artifact([pb.Part(text=text.upper()), pb.Part(data=data)])
                await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self._told.cancelled += 1
        assert context.task_id is not None
        assert context.context_id is not None
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def card_of(url: str, *skills: str, streaming: bool = True, binding: str = "JSONRPC") -> Any:
    return pb.AgentCard(
        name="clerk",
        description="Does what it is told.",
        version="1",
        supported_interfaces=[
            pb.AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")
        ],
        capabilities=pb.AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[
            pb.AgentSkill(id=each, name=each, description=f"{each}.", tags=["Office"])
            for each in skills
        ],
    )


def clerk(told: Told, card: pb.AgentCard) -> Starlette:
    """An A2A agent of the SDK."""
    handler = DefaultRequestHandler(
        agent_executor=Clerk(told), task_store=InMemoryTaskStore(), agent_card=card
    )
    return Starlette(
        routes=[
            *create_agent_card_routes(card),
            *create_jsonrpc_routes(handler, "/rpc"),
            *create_rest_routes(handler, path_prefix="/rest"),
        ]
    )
