"""The request log: one line for each request at a door, or for a share of them.

A line holds nothing that a caller has chosen but who it is: no path, no query, no header. The request itself only where
the operator asks for it, without its secrets.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import grpc

from weft.gateway.records.redaction import Redaction
from weft.gateway.transcoding.catalog import Catalog, Method
from weft.rpc.call import Call

log = logging.getLogger("weft.gateway.requests")

C = grpc.StatusCode
# What is not the caller's doing.
_OURS = frozenset({C.UNKNOWN, C.INTERNAL, C.UNAVAILABLE, C.DATA_LOSS, C.DEADLINE_EXCEEDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLogSettings:
    """Which requests are logged.

    Raises:
        ValueError: the share is none.
    """

    share: float = 0.0
    """Of all requests, 0 to 1."""
    failures: bool = False
    """Whether those that failed are logged, all of them."""
    bodies: bool = False
    """Whether lines hold the request, without its secrets."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError("the share of requests that are logged is between 0 and 1")

    @classmethod
    def read(cls, text: str, *, bodies: bool = False) -> Self:
        """The same from a setting: off, failures, all, or a share such as 0.01, beside which all failures are logged.

        Raises:
            ValueError: it is none of these.
        """
        shares = {"off": 0.0, "failures": 0.0, "all": 1.0}
        try:
            share = shares[text] if text in shares else float(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is not off, failures, all or a share such as 0.01"
            ) from None
        return cls(share=share, failures=text != "off", bodies=bodies)

    @property
    def on(self) -> bool:
        """Whether any are."""
        return self.failures or self.share > 0


class RequestLog:
    """Writes the lines.

    Args:
        settings: which.
        chance: between 0 and 1, never 1.
    """

    def __init__(
        self, settings: RequestLogSettings, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._share = settings.share
        self._failures = settings.failures
        self.bodies = settings.bodies
        self._chance = chance
        self._redaction = Redaction()
        self._methods: Mapping[str, Method] = MappingProxyType({})

    def use(self, catalog: Catalog) -> None:
        """Takes the methods whose requests can be shown."""
        self._methods = catalog.methods

    def ended(
        self,
        door: str,
        method: str,
        code: grpc.StatusCode,
        seconds: float,
        *,
        http_status: int = 0,
        call: Call | None,
        received: int,
        sent: int,
    ) -> None:
        """A request is over.

        Args:
            door: by which it came.
            method: "package.Service/Method".
            code: how it ended.
            seconds: how long it took.
            http_status: what HTTP said; 0: nothing.
            call: who called, and in which trace; None: it was refused before.
            received: bytes of its body or messages, as they came.
            sent: bytes of the answer.
        """
        if not (code is not C.OK and self._failures) and self._chance() >= self._share:
            return
        level = logging.WARNING if code in _OURS else logging.INFO
        if not log.isEnabledFor(level):
            return
        identity = call.identity if call is not None else None
        line: dict[str, Any] = {
            "door": door,
            "method": method,
            "code": code.name,
            "seconds": round(seconds, 6),
            "subject": identity.subject if identity is not None else "",
            "tenant": identity.tenant if identity is not None else "",
            "received_bytes": received,
            "sent_bytes": sent,
            "trace_id": call.trace_id if call is not None else "",
        }
        if http_status:
            line["http_status"] = http_status
        if call is not None and call.kept is not None:
            called = self._methods.get(call.method)
            if called is not None:
                line["request"] = self._redaction.shown(called, call.kept)
        # By hand: `log.info` looks for its caller in the stack, which costs as much as all the rest.
        record = logging.LogRecord(log.name, level, __file__, 0, "request", (), None)
        record.__dict__.update(line)
        log.handle(record)
