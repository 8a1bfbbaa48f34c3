"""Who asks, and whether what they ask for is well-formed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from weft import rpc
from weft.v1.identity_pb2 import Identity

_RUN_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MOST_SECONDS = 315_576_000_000  # of a google.protobuf.Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who calls."""

    tenant: str
    subject: str
    identity: Identity | None
    traceparent: str

    @property
    def serialized(self) -> bytes:
        """The identity as it is stored; empty: nobody said who calls."""
        return self.identity.SerializeToString() if self.identity is not None else b""


def asker() -> Asker:
    """Who made the call that is being served."""
    call = rpc.current_call()
    identity = call.identity if call is not None else None
    return Asker(
        tenant=identity.tenant if identity is not None else "",
        subject=identity.subject if identity is not None else "",
        identity=identity,
        traceparent=call.traceparent if call is not None else "",
    )


def required(text: str, field: str, *, most: int = 200) -> str:
    """A text that has to be there.

    Raises:
        InvalidArgument: it is not, or is none of that form.
    """
    if not text:
        raise rpc.InvalidArgument("is required", field=field)
    return plain(text, field, most=most)


def plain(text: str, field: str, *, most: int = 200) -> str:
    """A text that may be empty.

    Raises:
        InvalidArgument: it is too long, or holds what PostgreSQL cannot even look for.
    """
    if "\0" in text or len(text) > most:
        raise rpc.InvalidArgument(f"must have at most {most} characters, and no NUL", field=field)
    return text


def run_id(text: str, field: str) -> str:
    """An id that a caller gives a run.

    Raises:
        InvalidArgument: it cannot be one.
    """
    if not _RUN_ID.fullmatch(text):
        wrong = "must be 1 to 100 letters, digits, hyphens, dots and underscores"
        raise rpc.InvalidArgument(wrong, field=field)
    return text


def version_of(text: str, field: str) -> tuple[str, int]:
    """Name and version of "name" (0: the newest) or "name@3".

    Raises:
        InvalidArgument: it is neither.
    """
    name, at, version = text.partition("@")
    if not _NAME.fullmatch(name) or (at and not (version.isascii() and version.isdecimal())):
        raise rpc.InvalidArgument('must be a name, or "name@version"', field=field)
    number = int(version[:18]) if at else 0
    if at and not 0 < number < 2**62:
        raise rpc.InvalidArgument("versions are from 1", field=field)
    return name, number


def span(given: Duration, field: str) -> timedelta:
    """A duration that is longer than none.

    Raises:
        InvalidArgument: it is not.
    """
    if not 0 <= given.seconds <= _MOST_SECONDS or given.ToNanoseconds() <= 0:
        raise rpc.InvalidArgument("must be longer than 0 s", field=field)
    return timedelta(seconds=min(given.seconds, 10 * 365 * 86400), microseconds=given.nanos // 1000)
