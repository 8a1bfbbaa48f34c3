"""A remote MCP server as an agent of the mesh."""

from __future__ import annotations

import contextlib
import hashlib
import json

from weft import rpc
from weft.agents.remote.access import Access
from weft.agents.remote.contract import Made, Terms
from weft.agents.remote.line import Line
from weft.agents.remote.mcp import tools
from weft.agents.remote.mcp.session import Session, connect


class McpAgent:
    """An MCP server.

    Args:
        access: the way to it.
        terms: what the operator says of it.
    """

    def __init__(self, access: Access, terms: Terms) -> None:
        self._access = access
        self._terms = terms
        self._last: tuple[bytes, Made] | None = None

    @property
    def name(self) -> str:
        """Name of the agent that it becomes."""
        return self._terms.agent

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self._access.place

    def connected(self) -> contextlib.AbstractAsyncContextManager[Session]:
        """A connection.

        Raises:
            rpc.Error: there is none to be had.
        """
        return connect(self._access)

    async def contract(self, session: Session, line: Line[Session]) -> Made:
        """What the server offers now.

        Raises:
            rpc.Error: it does not say.
        """
        listed = await session.tools()
        about = session.about or f"Tools of the MCP server at {self.place}."
        digest = hashlib.sha256(json.dumps([about, listed]).encode()).digest()
        if self._last is not None and self._last[0] == digest:
            return self._last[1]
        try:
            made = tools.make(self._terms, about, listed, line)
        except TypeError as failed:  # what a pool raises for what does not build
            raise rpc.Internal(f"The tools make no contract: {failed}") from failed
        self._last = (digest, made)
        return made
