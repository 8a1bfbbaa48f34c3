"""Calls with an idempotency key: made at most once, and answered the same from then on.

After draft-ietf-httpapi-idempotency-key-header-07: a key belongs to its caller; the same key with another request is
refused (422), one whose call is being made is told so (409). What is known of a call is in PostgreSQL, so it survives the
gateway. A gateway that dies within a call leaves it undecided: it is never made again.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from google.rpc import error_details_pb2, status_pb2

from weft import rpc
from weft.gateway.failures import AgentUnavailable
from weft.gateway.guards.circuit import CircuitOpen
from weft.postgres import Database
from weft.rpc.errors import error_from_status

log = logging.getLogger("weft.gateway")

KEY = "idempotency-key"
LIFE = timedelta(hours=24)

# A string of RFC 9651, or the same without its quotes as most clients send it.
_FORM = re.compile(r'"([!-~]{1,255})"|([!#-~]{1,255})')
_MARGIN = timedelta(seconds=10)  # beyond a call's deadline, after which nobody makes it any more
_LONGEST = timedelta(hours=1)
_CLEANED = 600.0  # seconds
_FORGOTTEN = 5_000  # rows a statement forgets
_AGAIN = timedelta(seconds=1)


class KeyReused(rpc.InvalidArgument):
    """This idempotency key was used for another request; take a new one."""

    reason = "IDEMPOTENCY_KEY_REUSED"
    http_status = 422


class InProgress(rpc.Aborted):
    """The call of this idempotency key is being made; ask again in a moment."""

    reason = "IDEMPOTENCY_IN_PROGRESS"

    def __init__(self) -> None:
        again = error_details_pb2.RetryInfo()
        again.retry_delay.FromTimedelta(_AGAIN)
        super().__init__(details=[again])
        self.retry_after = _AGAIN


class OutcomeUnknown(rpc.Aborted):
    """Whether the call of this idempotency key was made is not known. Look for its effects; another key tries again."""

    reason = "IDEMPOTENCY_OUTCOME_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Answered:
    """A response, and whether it is that of an earlier call."""

    response: bytes
    replayed: bool = False


def parse_key(given: str) -> str:
    """The key in a header or metadata entry.

    Raises:
        rpc.InvalidArgument: it is none.
    """
    found = _FORM.fullmatch(given)
    if found is None:
        raise rpc.InvalidArgument("must be 1 to 255 visible ASCII characters", field=KEY)
    return found[1] or found[2]


class IdempotentCalls:
    """Makes calls once.

    Args:
        database: remembers them.
        life: for how long.
    """

    def __init__(self, database: Database, *, life: timedelta = LIFE) -> None:
        self._database = database
        self._life = life
        self._making: set[asyncio.Task[bytes]] = set()

    async def run(self) -> None:
        """Forgets what is too old, for ever; for a task of its own."""
        while True:
            try:
                while await self._database.execute("forget_idempotent_calls", _FORGOTTEN):
                    pass
            except rpc.Error:
                log.warning("idempotency keys cannot be forgotten yet", exc_info=True)
            await asyncio.sleep(_CLEANED)

    async def settle(self) -> None:
        """Returns when all calls are made and known."""
        await asyncio.gather(*self._making, return_exceptions=True)

    async def once(
        self,
        caller: str,
        key: str,
        *,
        method: str,
        request: bytes,
        deadline: rpc.Deadline,
        make: Callable[[], Awaitable[bytes]],
    ) -> Answered:
        """Makes a call, or answers as it was answered before. It goes on though its caller hangs up.

        Args:
            caller: whose key it is.
            key: see `parse_key`.
            method: with `request`, what is asked.
            request: the message.
            deadline: of the call.
            make: makes it.

        Raises:
            KeyReused, InProgress, OutcomeUnknown: see there.
            rpc.Unavailable: PostgreSQL is away; the call was not made.
            rpc.Error: the call failed, now or then.
        """
        digest = hashlib.sha256(b"%s\0%s" % (method.encode(), request)).digest()
        lock = min(deadline.remaining(), _LONGEST) + _MARGIN
        begun = await self._database.fetchrow(
            "begin_idempotent_call", caller, key, digest, lock, self._life
        )
        if begun is None:
            return await self._replay(caller, key, digest)
        context = contextvars.copy_context()
        task = asyncio.get_running_loop().create_task(
            self._make(caller, key, make), context=context
        )
        self._making.add(task)
        task.add_done_callback(self._made)
        return Answered(await asyncio.shield(task))

    async def _make(self, caller: str, key: str, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            response = await make()
        except rpc.Error as failed:
            if _never_made(failed):
                await self._database.execute("release_idempotent_call", caller, key)
            else:
                await self._keep(caller, key, None, rpc.status_proto(failed).SerializeToString())
            raise
        await self._keep(caller, key, response, None)
        return response

    async def _keep(
        self, caller: str, key: str, response: bytes | None, status: bytes | None
    ) -> None:
        try:
            with rpc.Deadline.after(_MARGIN).applied():
                await self._database.execute("end_idempotent_call", caller, key, response, status)
        except rpc.Error:
            # Whoever asked is told the truth; whoever asks again hears that it is not known.
            log.exception("the outcome of an idempotent call is lost")

    async def _replay(self, caller: str, key: str, digest: bytes) -> Answered:
        row = await self._database.fetchrow("find_idempotent_call", caller, key)
        if row is None:  # its call was not made after all, just now
            raise InProgress
        if row["digest"] != digest:
            raise KeyReused(field=KEY)
        if row["response"] is not None:
            return Answered(row["response"], replayed=True)
        if row["status"] is not None:
            raise error_from_status(status_pb2.Status.FromString(row["status"]))
        if not row["over"]:
            raise InProgress
        unknown = OutcomeUnknown()
        await self._keep(caller, key, None, rpc.status_proto(unknown).SerializeToString())
        raise unknown

    def _made(self, task: asyncio.Task[bytes]) -> None:
        self._making.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone


def _never_made(failed: rpc.Error) -> bool:
    return isinstance(failed, CircuitOpen) or (
        isinstance(failed, AgentUnavailable) and failed.unsent
    )
