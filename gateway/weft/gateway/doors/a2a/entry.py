"""How a message comes to its skill: by the same guards as at every other door."""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping
from typing import Any

import orjson

from weft import rpc
from weft.gateway.doors.a2a.protocol import NAME
from weft.gateway.doors.a2a.tasks import Task
from weft.gateway.doors.calls import Calls
from weft.gateway.http.exchange import Exchange, Receive
from weft.gateway.transcoding.catalog import Method


async def enter(calls: Calls, exchange: Exchange, method: Method, wire: bytes) -> None:
    """Admits a request, whose body was read, for a method; it may take as long as the skill says.

    Raises:
        rpc.Error: the caller lacks a scope, or is not let in.
    """
    exchange.receive = _again(wire, exchange.receive)
    await calls.enter(exchange, method, NAME)
    assert exchange.call is not None
    # How long the caller waits is not how long the task may take.
    exchange.call.deadline = rpc.Deadline.after(method.skill.default_timeout)


def converse(exchange: Exchange, task: Task) -> None:
    """Tells the agent the conversation that a task belongs to.

    Its id is made of the caller and the context, so that nobody can take part in another's by naming its context.
    """
    assert exchange.call is not None
    whose = orjson.dumps([task.owner.tenant, task.owner.subject, task.context_id])
    exchange.call.conversation = f"a2a-{hashlib.sha256(whose).hexdigest()[:32]}"


def _again(body: bytes, receive: Receive) -> Receive:
    """What a request receives whose body was read before: this body, then what comes."""
    told = False

    async def receive_again() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
