"""The audit log: who did what. A stream of its own, the logger `weft.audit`.

Calls that have effects, whoever was not let in, limits that were reached: told as they happen, by the gateway where they did.
What operators do (keys, held circuits) is in PostgreSQL with the name of who did it, written with the act itself;
one gateway tells of each.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import grpc
import orjson

from weft import rpc
from weft.postgres import Database
from weft.rpc.call import Call
from weft.v1.identity_pb2 import Identity

log = logging.getLogger("weft.audit")

_FOLLOWED = 1.0  # seconds
_TOGETHER = 1.0  # seconds within which what happens again is told once
_MOST = 1_000  # things that are told together at a time


class AuditLog:
    """Writes the lines."""

    def __init__(self) -> None:
        self._again: dict[tuple[str, ...], tuple[dict[str, Any], int]] = {}

    def called(
        self,
        method: str,
        call: Call,
        code: grpc.StatusCode,
        *,
        job: str = "",
        replayed: bool = False,
    ) -> None:
        """A call that has effects was made, or a job begun for it.

        Args:
            method: "package.Service/Method".
            call: who called.
            code: how it ended.
            job: the job; empty: none.
            replayed: whether it was answered as before, and nothing was done.
        """
        further: dict[str, Any] = {"job": job} if job else {}
        if replayed:
            further["replayed"] = True
        _say(
            "call",
            _who(call.identity) | {"method": method, "code": code.name, "trace_id": call.trace_id},
            further,
        )

    def refused(self, refusal: rpc.Error, identity: Identity | None, key: str = "") -> None:
        """Somebody was not let in, or lacks a scope.

        Args:
            refusal: what was told.
            identity: who; None: that is not known.
            key: id of the API key that was given; empty: none was.
        """
        fields = _who(identity) | {"reason": refusal.reason}
        if method := refusal.metadata.get("method"):
            fields["method"] = method
        if scopes := refusal.metadata.get("missing_scopes"):
            fields["missing_scopes"] = scopes
        if key:
            fields["key"] = key
        self._seldom("refused", fields)

    def limited(self, limit: str, method: str, identity: Identity | None) -> None:
        """A limit refused a call."""
        self._seldom("limited", _who(identity) | {"limit": limit, "method": method.lstrip("/")})

    async def follow(self, database: Database) -> None:
        """Tells what operators do, for ever; for a task of its own. One of all gateways tells each."""
        while True:
            try:
                for row in await database.fetch("tell_operator_acts"):
                    said = {"at": row["at"].isoformat(), "by": row["actor"], "of": row["object"]}
                    _say(row["act"], said, {"details": orjson.loads(row["details"])})
            except rpc.Error:
                logging.getLogger("weft.gateway").warning(
                    "what operators did cannot be read", exc_info=True
                )
            await asyncio.sleep(_FOLLOWED)

    def settle(self) -> None:
        """Tells what waits to be told."""
        for key in list(self._again):
            self._tell_again(key)

    def _seldom(self, event: str, fields: dict[str, Any]) -> None:
        """Tells at once what is new, and how often it happened again once a second: a flood of requests is none of lines."""
        key = (event, *map(str, fields.values()))
        if key not in self._again and len(self._again) >= _MOST:
            key, fields = (event, ""), {"reason": "many at a time"}
        found = self._again.get(key)
        if found is not None:
            self._again[key] = (found[0], found[1] + 1)
            return
        self._again[key] = (fields, 0)
        _say(event, fields, {})
        asyncio.get_running_loop().call_later(_TOGETHER, self._tell_again, key)

    def _tell_again(self, key: tuple[str, ...]) -> None:
        fields, times = self._again.pop(key, ({}, 0))
        if times:
            _say(key[0], fields, {"times": times})


class Noted:
    """A call that the audit log is told of as it ends.

    Args:
        audit: told; None: nobody is.
        method: "package.Service/Method".
        call: who calls.

    Attributes:
        job: the job begun for it; empty: none.
        replayed: whether it was answered as before, and nothing was done.
    """

    __slots__ = ("_audit", "_call", "_method", "job", "replayed")

    def __init__(self, audit: AuditLog | None, method: str, call: Call) -> None:
        self._audit = audit
        self._method = method
        self._call = call
        self.job = ""
        self.replayed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failed: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._audit is None:
            return
        if failed is None:
            code = grpc.StatusCode.OK
        elif isinstance(failed, rpc.Error):
            code = failed.code
        elif isinstance(failed, asyncio.CancelledError | GeneratorExit):
            code = grpc.StatusCode.CANCELLED
        else:
            code = grpc.StatusCode.INTERNAL
        self._audit.called(self._method, self._call, code, job=self.job, replayed=self.replayed)


def _who(identity: Identity | None) -> dict[str, Any]:
    if identity is None:
        return {"subject": "", "tenant": ""}
    return {"subject": identity.subject, "tenant": identity.tenant}


def _say(event: str, fields: Mapping[str, Any], further: Mapping[str, Any]) -> None:
    record = logging.LogRecord(log.name, logging.INFO, __file__, 0, event, (), None)
    record.__dict__.update(fields, **further)
    if log.isEnabledFor(logging.INFO):
        log.handle(record)
