"""The call being served: who asked, how long it may take, in which conversation and trace.

Everything is read from the call's metadata at first use, so a handler that needs none of it pays nothing.
"""

from __future__ import annotations

import random
import re
import time
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import trace

from weft.rpc.deadline import SERVED, Deadline
from weft.rpc.live import LiveSettings
from weft.v1.identity_pb2 import Identity

IDENTITY_KEY = "weft-identity-bin"
CONVERSATION_KEY = "weft-conversation"
RUN_KEY = "weft-run"
UNITS_KEY = "weft-units"
TRACEPARENT_KEY = "traceparent"

# W3C Trace Context, version 00: version-traceid-parentid-flags.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_NOT_ZERO = (1 << 64) | 1  # both ids must differ from zero


def current_call() -> Call | None:
    """The call this task serves; None outside of a handler."""
    return cast("Call | None", SERVED.get())


def new_traceparent(*, sampled: bool = False) -> str:
    """A traceparent that begins a new trace."""
    # One draw for both ids: this is paid by every call that no trace reached.
    ids = f"{random.getrandbits(192) | _NOT_ZERO:048x}"
    return f"00-{ids[:32]}-{ids[32:]}-{'01' if sampled else '00'}"


def parse_traceparent(value: str) -> trace.SpanContext | None:
    """The span context a traceparent names; None when it is malformed (W3C: start a new trace)."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    return trace.SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(int(match[3], 16)),
    )


def format_traceparent(context: trace.SpanContext) -> str:
    """A span context as a traceparent."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"


class Call:
    """A call being served."""

    __slots__ = (
        "__weakref__",
        "_context",
        "_conversation",
        "_deadline",
        "_forwarded",
        "_identity",
        "_identity_ends",
        "_metadata",
        "_run",
        "_traceparent",
        "agent",
        "kept",
        "live",
        "method",
        "span",
        "units",
    )

    def __init__(self, method: str, context: grpc.aio.ServicerContext[Any, Any] | None) -> None:
        self.method = method
        self.agent = ""
        self.live: LiveSettings | None = None
        """What operators have set of the agent that serves it."""
        self.kept: bytes | None = None
        """Its request, where whoever serves it logs requests."""
        self.span: trace.Span | None = None
        self.units: int | None = None
        """What it cost so far, for the gateway's limits by units, where the agent itself says nothing; None: nothing is known."""
        self._context = context
        self._metadata: Metadata | None = None
        self._deadline: Deadline | None = None
        self._traceparent: str | None = None
        self._identity: Identity | None = None
        self._identity_ends: float | None = None
        self._conversation: str | None = None
        self._run: str | None = None
        self._forwarded: Metadata | None = None

    @classmethod
    def at_door(
        cls,
        method: str,
        metadata: Metadata,
        deadline: Deadline,
        identity: tuple[str, bytes] | None = None,
    ) -> Call:
        """A call that came in by a door of its own, with what that door found out about it.

        Args:
            method: gRPC path.
            metadata: what of the caller's metadata is believed, such as its traceparent.
            deadline: when the caller stops waiting.
            identity: metadata entry of who calls.
        """
        call = cls(method, None)
        call._metadata = metadata
        call._deadline = deadline
        call._forwarded = ()
        if identity is not None:
            call.trust(identity)
        return call

    @property
    def context(self) -> grpc.aio.ServicerContext[Any, Any] | None:
        """Of the call at its server; None: it came in by a door of its own."""
        return self._context

    def trust(self, identity: tuple[str, bytes], read: Identity | None = None) -> None:
        """Says who calls, as the door found out; calls made from here carry it on.

        Args:
            identity: metadata entry.
            read: the same, where the door has it; nobody may change it.
        """
        self._metadata = (*self.metadata, identity)
        self._forwarded = (identity,)
        self._identity = read

    @property
    def metadata(self) -> Metadata:
        """Metadata the caller sent, in order."""
        if self._metadata is None:
            context = self._context
            self._metadata = tuple(context.invocation_metadata() or ()) if context else ()
        return self._metadata

    def first(self, key: str) -> str | bytes | None:
        """First metadata value of a (lower-case) key."""
        for found, value in self.metadata:
            if found == key:
                return value
        return None

    @property
    def deadline(self) -> Deadline | None:
        """When the caller stops waiting; None: it named no deadline."""
        if self._deadline is None and self._context is not None:
            left = self._context.time_remaining()
            if left is not None:
                self._deadline = Deadline.after_seconds(left)
        return self._deadline

    @deadline.setter
    def deadline(self, value: Deadline) -> None:
        self._deadline = value

    @property
    def identity(self) -> Identity | None:
        """Who is calling; None: nobody said."""
        if self._identity is None:
            raw = self.first(IDENTITY_KEY)
            if isinstance(raw, bytes):
                try:
                    self._identity = Identity.FromString(raw)
                except DecodeError:
                    return None
        return self._identity

    @property
    def identity_to_pass_on(self) -> Identity | None:
        """The identity for a message sent from here; None where it has expired, and nobody would believe it."""
        identity = self.identity
        if identity is not None and identity.HasField("expire_time"):
            return identity if identity.expire_time.seconds > time.time() else None
        return identity

    def carry_identity_until(self, ends: float) -> None:
        """Says until when calls made from here carry the identity on, in seconds since 1970.

        Nobody would believe it afterwards: they are made in nobody's name then.
        """
        self._identity_ends = ends
        if ends < time.time():
            self._forwarded = None

    @property
    def conversation(self) -> str:
        """Conversation the call belongs to; empty: none. Set it, and calls made from here carry it on."""
        if self._conversation is None:
            raw = self.first(CONVERSATION_KEY)
            self._conversation = raw if isinstance(raw, str) else ""
        return self._conversation

    @conversation.setter
    def conversation(self, value: str) -> None:
        self._conversation = value
        self._forwarded = None

    @property
    def run(self) -> str:
        """Run of a workflow, or other work whose spending is counted together; empty: none. Set it to carry it on."""
        if self._run is None:
            raw = self.first(RUN_KEY)
            self._run = raw if isinstance(raw, str) else ""
        return self._run

    @run.setter
    def run(self, value: str) -> None:
        self._run = value
        self._forwarded = None

    @property
    def traceparent(self) -> str:
        """W3C trace context for what this call does; a trace is begun (unsampled) if the caller sent none."""
        if self.span is not None:
            current = trace.get_current_span().get_span_context()
            return format_traceparent(current if current.is_valid else self.span.get_span_context())
        if self._traceparent is None:
            raw = self.first(TRACEPARENT_KEY)
            valid = isinstance(raw, str) and parse_traceparent(raw) is not None
            self._traceparent = raw if valid and isinstance(raw, str) else new_traceparent()
        return self._traceparent

    @property
    def trace_id(self) -> str:
        """Trace of the call, 32 hexadecimal digits."""
        return self.traceparent.split("-", 2)[1]

    @property
    def forwarded(self) -> Metadata:
        """Metadata that every call made from here carries on: identity, conversation and run."""
        ended = self._identity_ends is not None and self._identity_ends < time.time()
        if self._forwarded is None or ended:
            identity = None if ended else self.first(IDENTITY_KEY)
            kept: list[tuple[str, str | bytes]] = []
            if identity is not None:
                kept.append((IDENTITY_KEY, identity))
            if self.conversation:
                kept.append((CONVERSATION_KEY, self.conversation))
            if self.run:
                kept.append((RUN_KEY, self.run))
            self._forwarded = tuple(kept)
        return self._forwarded


def serve_as(call: Call) -> None:
    """Makes `call` the one this task serves. For servers; every RPC runs in a task and context of its own."""
    SERVED.set(call)
