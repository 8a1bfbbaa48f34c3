"""A connection to an MCP server, by the client of the SDK: protocol 2026-07-28, or 2025-11-25 where the server has no newer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost, listen
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import MCPError
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from weft import rpc
from weft.agents.remote.access import MOST_BYTES, Access
from weft.agents.remote.contract import MOST_SKILLS
from weft.agents.remote.line import SESSION_GONE
from weft.agents.remote.mcp import transport
from weft.agents.remote.mcp.errors import AWAY, error_of, invalid
from weft.agents.remote.names import clean

log = logging.getLogger("weft.agents.remote")

Json = dict[str, Any]

_PATIENCE = 20.0  # seconds for an answer to anything but a call
_MOST_PAGES = 50


class Session:
    """A connection.

    Attributes:
        changed: set when the server said that its tools are others now.
        lost: set when the connection is good for nothing any more.
    """

    def __init__(self, client: ClientSession, dispatcher: _Dispatcher) -> None:
        self._client = client
        self._dispatcher = dispatcher
        self.changed = asyncio.Event()
        self.lost = asyncio.Event()

    @property
    def about(self) -> str:
        """What the server says of itself, for people."""
        info = self._client.server_info
        title = clean((info.title or info.name) if info else "", 100)
        return clean(self._client.instructions, 800) or title

    @property
    def protocol(self) -> str:
        """The protocol that is spoken."""
        return self._client.protocol_version or ""

    @property
    def is_modern(self) -> bool:
        """Whether it is a protocol without sessions."""
        return self.protocol in MODERN_PROTOCOL_VERSIONS

    async def tools(self) -> list[Json]:
        """The tools of the server, as it describes them.

        Raises:
            rpc.Error: it does not say.
        """
        found: list[Json] = []
        cursor: str | None = None
        with _told():
            async with asyncio.timeout(_PATIENCE):
                for _ in range(_MOST_PAGES):
                    params = types.PaginatedRequestParams(cursor=cursor) if cursor else None
                    page = await self._client.list_tools(params=params)
                    found += self._dispatcher.listed
                    cursor = page.next_cursor
                    if not cursor or len(found) > MOST_SKILLS:
                        break
        return found

    async def call(self, name: str, arguments: Json) -> types.CallToolResult:
        """Calls a tool.

        Raises:
            rpc.Error: what went wrong, except that the tool itself failed.
        """
        with _told():
            try:
                answer = await self._client.call_tool(name, arguments, allow_input_required=True)
            except MCPError as failed:
                if not self.is_modern and _is_gone(failed):
                    self.lost.set()
                    raise rpc.Unavailable(
                        "The server does not know the session any more.", reason=SESSION_GONE
                    ) from None
                if failed.error.code == types.HEADER_MISMATCH:
                    self.changed.set()  # of which it did not tell
                raise
        if isinstance(answer, types.CallToolResult):
            return answer
        raise rpc.FailedPrecondition(
            "The tool asks its caller for more, which it cannot be told from here.",
            reason="INPUT_REQUIRED",
        )

    async def probe(self) -> None:
        """Returns when the server answered.

        Raises:
            rpc.Error: it did not.
        """
        with _told():
            async with asyncio.timeout(_PATIENCE):
                if self.is_modern:
                    await self._client.send_discover(self.protocol)
                else:
                    await self._client.send_request(types.PingRequest(), types.EmptyResult)

    async def hear(self, message: IncomingMessage) -> None:
        """The server said something that nobody asked for."""
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.set()

    async def listen(self) -> None:
        """Hears of changes until the server says no more; for a task of its own."""
        capabilities = self._client.server_capabilities
        if not (capabilities and capabilities.tools and capabilities.tools.list_changed):
            return
        if not self.is_modern:
            return  # told by the stream that the client keeps open
        with contextlib.suppress(MCPError, SubscriptionLost):
            async with listen(self._client, tools_list_changed=True) as heard:
                async for _ in heard:
                    self.changed.set()
        self.changed.set()  # and perhaps did not hear all


@contextlib.asynccontextmanager
async def connect(access: Access) -> AsyncIterator[Session]:
    """A connection to a server.

    Raises:
        rpc.Error: there is none to be had.
    """
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        http = await enter(transport.client(access))
        read, write = await enter(
            streamable_http_client(
                access.remote.url, http_client=http, max_sse_event_size=2 * MOST_BYTES
            )
        )
        dispatcher = _Dispatcher(read, write)
        session: Session | None = None

        async def hear(message: IncomingMessage) -> None:
            if session is not None:
                await session.hear(message)

        client = await enter(
            ClientSession(
                dispatcher=dispatcher,
                message_handler=hear,
                client_info=types.Implementation(name="weft", version=version("weft")),
            )
        )
        with _told():
            async with asyncio.timeout(_PATIENCE):
                await _negotiate(client)
        session = Session(client, dispatcher)
        listening = asyncio.create_task(session.listen())
        try:
            yield session
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _negotiate(client: ClientSession) -> None:
    try:
        await client.discover()
    except MCPError as failed:
        if failed.error.code in AWAY:
            raise
    except (RuntimeError, ValidationError):
        log.debug("the server has no newer protocol", exc_info=True)
    else:
        return
    await client.initialize()


class _Dispatcher(JSONRPCDispatcher[Any]):
    """Takes tools as they are listed: the client would refuse all for the sake of one that is malformed.

    Attributes:
        listed: the tools of the last page.
    """

    listed: list[Json]

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions | None = None,
        **further: Any,
    ) -> dict[str, Any]:
        answer = await super().send_raw_request(method, params, opts, **further)
        if method != "tools/list":
            return answer
        tools = answer.get("tools")
        self.listed = [
            each
            for each in (tools if isinstance(tools, list) else [])
            if isinstance(each, dict) and isinstance(each.get("name"), str)
        ]
        # What the client itself needs: it shall not compile the patterns of strangers to check answers by them.
        kept = [
            {
                "name": each["name"],
                "inputSchema": {**_schema(each), "type": "object"},
            }
            for each in self.listed
        ]
        shown: Json = {"tools": kept, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        if isinstance(answer.get("nextCursor"), str):
            shown["nextCursor"] = answer["nextCursor"]
        return shown


def _schema(tool: Json) -> Json:
    schema = tool.get("inputSchema")
    return schema if isinstance(schema, dict) else {}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns what the client raises into errors of RPC."""
    try:
        yield
    except MCPError as failed:
        raise error_of(failed) from None
    except ValidationError:
        raise invalid("The server's answer is not what its protocol says.") from None
    except TimeoutError:
        raise rpc.Unavailable("The server does not answer.", reason="REMOTE_SILENT") from None


def _is_gone(failed: MCPError) -> bool:
    """Whether the server does not know the session any more."""
    return failed.error.code == transport.STATUS and failed.error.data == 404  # noqa: PLR2004 HTTP
