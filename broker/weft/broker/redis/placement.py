"""Which node has which shard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from weft import rpc
from weft.broker.redis import slots
from weft.broker.redis.connection import Command, Pending
from weft.broker.redis.errors import StoreUnavailable
from weft.broker.redis.node import Node, Watchers
from weft.broker.redis.session import Terms
from weft.broker.redis.topology import finder
from weft.broker.redis.url import Url

_PAUSE = 0.05


class Placement(Protocol):
    """The nodes, and which of them has a shard.

    Attributes:
        table: the node of each shard; that of the config shard comes last.
    """

    table: list[Node]

    async def start(self, deadline: rpc.Deadline) -> None:
        """Returns when every node can be used. Raises why it cannot."""
        ...

    def listen(self) -> None:
        """Makes every node listen to the bells of its shards from now on."""
        ...

    async def close(self, drain: float) -> None:
        """Ends all."""
        ...


class Lone:
    """One primary has everything."""

    def __init__(
        self,
        url: Url,
        terms: Terms,
        on_bell: Callable[[bytes, bytes], None],
        on_reset: Callable[[], None],
    ) -> None:
        watchers = Watchers(
            on_bell=on_bell, on_reset=on_reset, on_trouble=_nothing, on_error=_keep_error
        )
        self._node = Node(str(url), finder(url, terms), terms, watchers)
        self._node.assign(frozenset(slots.SHARDS), listening=False)
        self.table = [self._node] * len(slots.SHARDS)
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, deadline: rpc.Deadline) -> None:
        """Returns when it can be used. Raises why it cannot."""
        await persist(self._node, deadline)
        self._keeper = asyncio.create_task(self._node.keep())

    def listen(self) -> None:
        """Listens to all bells."""
        self._node.assign(frozenset(slots.SHARDS), listening=True)

    async def close(self, drain: float) -> None:
        """Ends it."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._node.close(drain)


async def persist(node: Node, deadline: rpc.Deadline) -> None:
    """Tries until the node has a session. What is not going to change is raised at once."""
    while True:
        try:
            return await node.attempt()
        except StoreUnavailable:
            if deadline.seconds() < _PAUSE:
                raise
        await asyncio.sleep(_PAUSE)


def _keep_error(node: Node, pending: Pending, command: Command, error: Exception) -> bool:  # noqa: ARG001 a callback
    """With one primary an error reply is the command's own."""
    return False


def _nothing() -> None:
    """One primary has nowhere else to be looked for."""
