"""How a message comes to its skill: by the same guards as at every other door."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import orjson

from weft import rpc
from weft.gateway.doors.a2a.protocol import NAME
from weft.gateway.doors.calls import Calls
from weft.gateway.http.exchange import Exchange
from weft.gateway.jobs import Owner
from weft.gateway.transcoding.catalog import Method
from weft.rpc.call import Call


async def admit(
    calls: Calls, exchange: Exchange, method: Method, time: timedelta, owner: Owner, context: str
) -> Call:
    """Admits a request, whose body was read, for a method.

    Args:
        calls: the way to agents.
        exchange: the request.
        method: what is to be called.
        time: how long that may take, whatever its caller waits.
        owner: the caller.
        context: what the call belongs to.

    Raises:
        rpc.Error: the caller lacks a scope, or is not let in.
    """
    await calls.admit(exchange, method, NAME)
    call = exchange.call
    assert call is not None
    call.deadline = rpc.Deadline.after(time)
    # The conversation, as the agent is told, is made of caller and context, so that nobody can take part in another's by
    # naming its context.
    whose = orjson.dumps([owner.tenant, owner.subject, context])
    call.conversation = f"a2a-{hashlib.sha256(whose).hexdigest()[:32]}"
    return call
