"""Redis Cluster: shards are where their slots are, and move; the callers need not know.

A command that comes too late for a move is sent on with its future. Redis did not execute it, so this is safe; but it may
then be overtaken by a later one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

from weft import rpc
from weft.broker.redis import cluster_map, slots
from weft.broker.redis.connection import Command, Pending
from weft.broker.redis.durability import Held
from weft.broker.redis.errors import (
    ConnectionLost,
    Redirected,
    ReplyError,
    StoreRefuses,
    StoreUnavailable,
    StoreUnfit,
)
from weft.broker.redis.node import Node, Watchers
from weft.broker.redis.opening import ask
from weft.broker.redis.placement import persist
from weft.broker.redis.session import Terms
from weft.broker.redis.topology import One
from weft.broker.redis.url import Address, Url

_LOG = logging.getLogger("weft.broker")
_REFRESH = 10.0
_ANSWER = 1.0
_PAUSE = 0.03
_MOST_MOVES = 8
_MOST_WAITS = 40


class _Again:
    """A command that was sent elsewhere, and how often."""

    __slots__ = ("done", "set_exception", "set_result", "tries")

    def __init__(self, pending: Pending) -> None:
        self.done = pending.done
        self.set_result = pending.set_result
        self.set_exception = pending.set_exception
        self.tries = 0


class Cluster:
    """The primaries of a cluster, and who has which shard."""

    def __init__(
        self,
        url: Url,
        terms: Terms,
        on_bell: Callable[[bytes, bytes], None],
        on_reset: Callable[[], None],
    ) -> None:
        self.table: list[Node] = []
        self._terms = terms
        self._seeds = frozenset(url.addresses)
        self._known = self._seeds
        self._nodes: dict[Address, Node] = {}
        self._keepers: dict[Node, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._primaries: set[Address] = set()
        self._listening = False
        self._wanted = asyncio.Event()
        self._watchers = Watchers(
            on_bell=on_bell,
            on_reset=on_reset,
            on_trouble=self._wanted.set,
            on_error=self._redirect,
        )

    @property
    def nodes(self) -> list[Node]:
        """All primaries that have shards."""
        return list(self._nodes.values())

    # -- beginning and end

    async def start(self, deadline: rpc.Deadline) -> None:
        """Returns when every primary can be used. Raises why it cannot."""
        while True:
            try:
                self._apply(await self._owners())
                break
            except ReplyError as error:
                raise StoreUnfit(f"This is no cluster: {error}") from error
            except StoreUnavailable:
                if deadline.seconds() < _PAUSE:
                    raise
            await asyncio.sleep(_PAUSE)
        tried = await asyncio.gather(
            *(persist(node, deadline) for node in self.nodes), return_exceptions=True
        )
        for failed in filter(None, tried):
            raise failed
        for node in self.nodes:
            self._keep(node)
        self._spawn(self._refresh(), self._tasks)

    def listen(self) -> None:
        """Every node listens to the bells of its shards from now on."""
        self._listening = True
        self._assign()

    async def close(self, drain: float) -> None:
        """Ends all."""
        ending = [*self._tasks, *self._keepers.values()]
        for task in ending:
            task.cancel()
        ending += self._leaving
        if ending:
            await asyncio.wait(ending)
        await asyncio.gather(*(node.close(drain) for node in self.nodes))

    def _keep(self, node: Node) -> None:
        self._keepers[node] = asyncio.create_task(node.keep())

    def _spawn(self, work: Coroutine[Any, Any, None], owned: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        owned.add(task)
        task.add_done_callback(owned.discard)

    # -- the map

    async def _refresh(self) -> None:
        """Keeps the map true: after every sign of a change, and now and then."""
        pause = _PAUSE
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                self._apply(await self._owners())
                pause = _PAUSE
            except Exception as error:  # noqa: BLE001 whatever it is, we ask again
                _LOG.warning("The cluster does not say who has what: %s", error)
                self._wanted.set()
                pause = min(_ANSWER, 2 * pause)
            await asyncio.sleep(pause)

    async def _owners(self) -> list[Address]:
        """Asks all nodes that were ever heard of, since those that are cut off tell old stories."""
        found: list[cluster_map.Row] = []
        failed: list[BaseException] = []
        asked = list(self._known)
        for address, said in zip(
            asked, await asyncio.gather(*map(self._ask, asked), return_exceptions=True), strict=True
        ):
            if isinstance(said, BaseException):
                failed.append(said)
            else:
                found += cluster_map.rows(said, address)
        if not found and failed:
            raise failed[0]
        self._known = self._seeds | {row.address for row in found}
        self._primaries = {row.address for row in found if row.primary}
        if (all_ := cluster_map.owners(found)) is None:
            raise StoreRefuses("CLUSTERDOWN some slots have no node")
        return all_

    async def _ask(self, address: Address) -> bytes:
        node = self._nodes.get(address)
        try:
            async with asyncio.timeout(_ANSWER):
                if node is not None and node.session is not None:
                    said = await node.session.commands.send("CLUSTER", "NODES")
                else:
                    terms = self._terms
                    said = await ask(address, terms.account, "CLUSTER", "NODES")
        except TimeoutError:
            raise ConnectionLost(f"Redis at {address} does not answer.") from None
        assert isinstance(said, bytes)
        return said

    def _apply(self, owners: list[Address]) -> None:
        self.table[:] = [self._node(address) for address in owners]
        self._assign()

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = Node(str(address), One(address), self._terms, self._watchers)
            self._nodes[address] = node
            if self._keepers:  # the first ones are connected by `start`
                self._keep(node)
        return node

    def _assign(self) -> None:
        """Tells every node its shards; who has none and is no primary any more is let go."""
        shards: dict[Node, set[int]] = {node: set() for node in self.nodes}
        for shard, node in zip(slots.SHARDS, self.table, strict=True):
            shards[node].add(shard)
        for address, node in list(self._nodes.items()):
            node.assign(frozenset(shards[node]), listening=self._listening)
            if not shards[node] and address not in self._primaries:
                del self._nodes[address]
                self._spawn(self._let_go(node), self._leaving)

    async def _let_go(self, node: Node) -> None:
        keeper = self._keepers.pop(node)  # a node is let go once, after the start
        keeper.cancel()
        await asyncio.wait({keeper})
        await node.close(_ANSWER)

    # -- commands that came to the wrong node

    def _redirect(self, node: Node, pending: Pending, command: Command, error: Exception) -> bool:
        """Takes care of a command that a node sent away; False: its error is for the caller."""
        if isinstance(error, StoreRefuses) and error.refusal == "CLUSTERDOWN":
            self._wanted.set()
            waits = True
        elif isinstance(error, Redirected):
            waits = error.code == "TRYAGAIN"
        else:
            return False
        again = pending if isinstance(pending, _Again | Held) else _Again(pending)
        again.tries += 1
        if again.tries > (_MOST_WAITS if waits else _MOST_MOVES):
            again.set_exception(StoreRefuses(str(error)))
        elif waits:
            self._spawn(self._wait(node, again, command), self._tasks)
        else:
            assert isinstance(error, Redirected)
            self._send_on(node, again, command, error)
        return True

    def _send_on(
        self, node: Node, again: _Again | Held, command: Command, error: Redirected
    ) -> None:
        address = Address.parse(error.address)
        if not address.host:
            assert node.session is not None
            address = Address(node.session.commands.address.host, address.port)
        target = self._node(address)
        moved = error.code == "MOVED"
        if moved:
            self._note_move(error.slot, target)
        if target.ready.is_set():
            target.put_again(again, command, asking=not moved)
        else:
            self._spawn(self._when_ready(target, again, command, asking=not moved), self._tasks)

    def _note_move(self, slot: int, target: Node) -> None:
        self._wanted.set()
        for place, ours in enumerate(slots.SLOT_OF_SHARD):
            if ours == slot:
                self.table[place] = target

    async def _wait(self, node: Node, again: _Again | Held, command: Command) -> None:
        """For what passes by itself: half of the keys are here, half there; or nobody has the slot."""
        try:
            await asyncio.sleep(random.uniform(_PAUSE / 2, _PAUSE))  # noqa: S311 jitter
            node.put_again(again, command, asking=isinstance(again, Held) and again.asking)
        except asyncio.CancelledError:
            again.set_exception(ConnectionLost("Closed before Redis had done it."))
            raise

    async def _when_ready(
        self, node: Node, again: _Again | Held, command: Command, *, asking: bool
    ) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER):
                    await node.ready.wait()
            node.put_again(again, command, asking=asking)
        except asyncio.CancelledError:
            again.set_exception(ConnectionLost("Closed before Redis had done it."))
            raise
