"""A remote A2A agent as an agent of the mesh."""

from __future__ import annotations

import contextlib

from weft import rpc
from weft.agents.remote.a2a import skills
from weft.agents.remote.a2a.conversations import Conversations
from weft.agents.remote.a2a.session import Session, connect
from weft.agents.remote.access import Access
from weft.agents.remote.contract import Made, Terms
from weft.agents.remote.line import Line


class A2aAgent:
    """An A2A agent.

    Args:
        access: the way to it.
        terms: what the operator says of it.
    """

    def __init__(self, access: Access, terms: Terms) -> None:
        self._access = access
        self._terms = terms
        self._conversations = Conversations()

    @property
    def name(self) -> str:
        """Name of the agent that it becomes."""
        return self._terms.agent

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self._access.place

    def connected(self) -> contextlib.AbstractAsyncContextManager[Session]:
        """A connection."""
        return connect(self._access)

    async def contract(self, session: Session, line: Line[Session]) -> Made:
        """What the agent offers now.

        Raises:
            rpc.Error: it does not say.
        """
        card = await session.look()
        try:
            return skills.make(self._terms, card, line, self._conversations)
        except TypeError as failed:  # what a pool raises for what does not build
            raise rpc.Internal(f"The skills make no contract: {failed}") from failed
