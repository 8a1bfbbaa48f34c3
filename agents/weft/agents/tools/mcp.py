"""Tools of an MCP server as tools: by the client and the contracts of `weft.agents.remote`, without an agent in between.

Needs the extra `weft[remote]`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from weft import rpc
from weft.agents.remote.access import Access
from weft.agents.remote.contract import Made, Terms
from weft.agents.remote.line import Line
from weft.agents.remote.mcp import McpAgent
from weft.agents.remote.mcp.session import Session
from weft.agents.remote.names import snake
from weft.agents.tools.tool import Tool
from weft.config import Remote
from weft.v1 import options_pb2

log = logging.getLogger("weft.agents.tools")

_PAUSES = (0.5, 15.0)  # seconds between attempts to connect, the first and the longest


class McpTools:
    """The tools of an MCP server. A connection that is lost is made anew.

        async with McpTools.connected(Remote(name="weather", protocol="mcp", url=...)) as weather:
            toolbox = Toolbox(await weather.tools(), audit=audit)

    Args:
        remote: the server, and what its callers need: `scopes`, by default "tools.NAME".
        environ: where its credential may be.
    """

    def __init__(self, remote: Remote, environ: Mapping[str, str] | None = None) -> None:
        terms = Terms(
            agent=remote.name, scopes=remote.scopes, timeout=timedelta(seconds=remote.timeout)
        )
        self._remote = remote
        self._agent = McpAgent(Access(remote, environ), terms)
        self._line: Line[Session] = Line()
        self.changed = asyncio.Event()
        """Set when the server's tools may be others now: ask for them again, and replace them."""

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(
        cls, remote: Remote, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[McpTools]:
        """Tools of a server that is there now, connected until the context is left.

        Raises:
            rpc.Error: it is not.
        """
        made = cls(remote, environ)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeping = asyncio.create_task(made._keep(begun), name=f"tools of {remote.name}")
        try:
            await begun
            yield made
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def tools(self) -> list[Tool]:
        """The tools that the server has now.

        Raises:
            rpc.Error: it does not say.
        """
        self.changed.clear()
        made = await self._line.call(lambda session: self._agent.contract(session, self._line))
        return [self._tool(made, each) for each in made.contract.descriptor.methods]

    async def _keep(self, begun: asyncio.Future[None]) -> None:
        pause = _PAUSES[0]
        while True:
            try:
                async with self._agent.connected() as session:
                    self._line.session = session
                    if not begun.done():
                        begun.set_result(None)
                    pause = _PAUSES[0]
                    await self._good(session)
            except Exception as failed:  # noqa: BLE001 nothing a remote does may end this
                error = _error_of(failed)
                if not begun.done():
                    begun.set_exception(error)
                    return
                log.warning("%s is away: %s", self._remote.name, error.message)
            finally:
                self._line.session = None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSES[1])

    async def _good(self, session: Session) -> None:
        """Returns when a connection is good for nothing any more."""
        self.changed.set()  # it may be another server by now
        while not session.lost.is_set():
            events = (session.lost, session.changed, self._line.trouble)
            waiting = [asyncio.create_task(each.wait()) for each in events]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in waiting:
                    each.cancel()
            if session.changed.is_set():
                session.changed.clear()
                self.changed.set()
            if self._line.trouble.is_set():
                self._line.trouble.clear()
                try:
                    await session.probe()
                except rpc.Error:
                    return

    def _tool(self, made: Made, method: MethodDescriptor) -> Tool:
        options = MethodOptions.FromString(method.GetOptions().SerializeToString())
        request = made.classes[method.input_type.full_name]
        response = made.classes[method.output_type.full_name]
        serve = made.served[method.name]

        async def run(request: Message) -> Message:
            return response.FromString(await serve(request, None))

        remote = self._remote
        return Tool(
            name=f"{remote.name}_{snake(method.name)}"[:64],
            description=options.Extensions[options_pb2.skill].description,
            request=request,
            response=response,
            run=run,
            scopes=remote.scopes or (f"tools.{remote.name}",),
            effects=options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS,
            timeout=timedelta(seconds=remote.timeout),
        )


def _error_of(failed: BaseException) -> rpc.Error:
    """What went wrong, whatever groups it came in."""
    while isinstance(failed, BaseExceptionGroup):
        failed = failed.exceptions[0]
    if isinstance(failed, rpc.Error):
        return failed
    return rpc.Unavailable(f"The server cannot be reached ({type(failed).__name__}).")
