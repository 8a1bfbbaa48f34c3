"""Calls skills for runs: in the name of who began the run, with the idempotency key of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry import context, trace

from weft import rpc
from weft.agents.orchestrator.plan.model import CallAction
from weft.rpc.call import IDENTITY_KEY, TRACEPARENT_KEY, Call, parse_traceparent, serve_as
from weft.rpc.signing import Signer
from weft.v1.identity_pb2 import Identity

KEY = "idempotency-key"


class NothingCame(rpc.Internal):
    """The skill's stream ended without a message."""

    reason = "EMPTY_STREAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """In whose name a run calls."""

    identity: bytes
    """weft.v1.Identity; empty: nobody's."""
    traceparent: str
    run: str = ""
    """Id of the run that pays: what agents spend on its behalf is counted together."""


class Calls:
    """The way to agents.

    Args:
        channel: the channel to an agent, as `weft.agents.Mesh.channel`.
        find: the agent to call where an action names none.
        signer: signs identities anew: those of runs that wait for days have expired. None: they go as they are.
    """

    def __init__(
        self,
        channel: Callable[[str], grpc.aio.Channel],
        find: Callable[[CallAction], Any],
        *,
        signer: Signer | None = None,
    ) -> None:
        self._channel = channel
        self._find = find
        self._signer = signer
        self._methods: dict[tuple[str, str, bool], Any] = {}

    async def make(
        self, caller: Caller, action: CallAction, request: bytes, key: str, seconds: float
    ) -> bytes:
        """Makes a call, in a task of its own; the response, serialized.

        Args:
            caller: in whose name.
            action: the skill.
            request: serialized.
            key: the idempotency key.
            seconds: how long it may take.

        Raises:
            rpc.Error: it failed.
        """
        deadline = rpc.Deadline.after_seconds(seconds)
        serve_as(self._served(caller, action.path, deadline))
        _trace_on(caller.traceparent)
        agent = action.agent or await self._find(action)
        method = self._method(agent, action)
        call = method(request, metadata=((KEY, key),))
        try:
            if not action.streams:
                response: bytes = await call
                return response
            last: bytes | None = None
            async for message in call:
                last = message
        except grpc.aio.AioRpcError as failed:
            raise rpc.error_from_call(failed) from None
        finally:
            call.cancel()  # nothing where it has ended
        if last is None:
            raise NothingCame
        return last

    def _served(self, caller: Caller, path: str, deadline: rpc.Deadline) -> Call:
        traced = ((TRACEPARENT_KEY, caller.traceparent),) if caller.traceparent else ()
        identity = caller.identity
        if identity and self._signer is not None:
            signed = self._signer.sign(Identity.FromString(identity))
            identity = signed.SerializeToString()
        entry = (IDENTITY_KEY, identity) if identity else None
        call = Call.at_door(path, traced, deadline, entry)
        call.run = caller.run
        return call

    def _method(self, agent: str, action: CallAction) -> Any:
        known = (agent, action.path, action.streams)
        method = self._methods.get(known)
        if method is None:
            channel = self._channel(agent)
            made = channel.unary_stream if action.streams else channel.unary_unary
            method = self._methods[known] = made(action.path)
        return method


def _trace_on(traceparent: str) -> None:
    """Makes the spans of this task children of whatever began the run: it is not served in this process any more."""
    parent = parse_traceparent(traceparent) if traceparent else None
    if parent is not None:
        context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
