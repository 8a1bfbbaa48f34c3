"""Loads that instances report, and what a replica keeps of them."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from weft.registry import loads
from weft.registry.index import Index
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2


class Alone:
    """A membership with this replica only."""

    peers = ("this one",)


async def test_a_replica_that_is_alone_keeps_nothing_of_instances_that_are_gone(monkeypatch):
    monkeypatch.setattr(loads, "_EVERY", 0.01)
    shared = loads.Loads(None, Index(), Alone())
    load = agent_pb2.Load(calls=1)
    before = sys.getrefcount(load)
    shared.report("gone-soon", load)
    assert sys.getrefcount(load) > before
    running = asyncio.create_task(shared.run())
    await wait_until(lambda: sys.getrefcount(load) == before)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
