"""The guards between admission and the agent, in one order for every door.

Limits, then idempotency, then the cache; `Upstream` has the circuit breaker and the second attempts.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from weft import rpc
from weft.gateway.failures import AgentUnavailable
from weft.gateway.guards.cache import ResponseCache
from weft.gateway.guards.call_limits import CallLimits, Entry, units_in
from weft.gateway.guards.circuit import CircuitOpen
from weft.gateway.guards.idempotency import IdempotentCalls
from weft.gateway.jobs.asked import Asked, Asking
from weft.gateway.metadata import Beside
from weft.gateway.records import AuditLog, Noted
from weft.gateway.transcoding.catalog import Catalog, Idempotency, Method
from weft.gateway.upstream import Upstream
from weft.rpc.call import Call
from weft.rpc.subjects import subject_of
from weft.v1.identity_pb2 import Identity

Headers = list[tuple[bytes, bytes]]
_Begin = Callable[[Beside | None], AsyncGenerator[bytes, None]]

REPLAYED = b"idempotency-replayed"


class Guarded:
    """Calls agents with all guards.

    Args:
        upstream: the way to agents.
        idempotent: makes calls with an idempotency key once.
        limits: lets calls in.
        cache: keeps answers.
        asking: begins jobs.
        audit: told of calls with effects; None: nobody is.
        keeps: whether calls keep their requests, for the request log.
    """

    def __init__(
        self,
        upstream: Upstream,
        idempotent: IdempotentCalls,
        limits: CallLimits,
        cache: ResponseCache,
        asking: Asking,
        *,
        audit: AuditLog | None = None,
        keeps: bool = False,
    ) -> None:
        self.upstream = upstream
        self._idempotent = idempotent
        self._limits = limits
        self._cache = cache
        self._asking = asking
        self._audit = audit
        self._keeps = keeps

    def use(self, catalog: Catalog) -> None:
        """Takes the methods that can be called."""
        self._limits.use(catalog.methods)
        self._cache.use(catalog.methods)

    async def unary(
        self,
        method: Method,
        call: Call,
        request: bytes,
        *,
        headers: Headers,
        beside: Beside | None = None,
        key: str | None = None,
        control: bytes = b"",
    ) -> bytes:
        """Calls a unary method.

        Args:
            method: what is called.
            call: who calls, and until when.
            request: the message.
            headers: takes what guards tell the caller, of a call that fails too.
            beside: metadata to send; takes what the agent sends.
            key: idempotency key, for methods with effects.
            control: the caller's Cache-Control.

        Raises:
            rpc.Error: as the agent answered, or the guard that refuses the call.
        """
        if self._keeps:
            call.kept = request
        if self._audit is None or method.idempotency is Idempotency.NO_SIDE_EFFECTS:
            return await self._unary(method, call, request, headers, beside, key, control)
        with self.noted(method, call) as note:
            response = await self._unary(method, call, request, headers, beside, key, control)
            note.replayed = (REPLAYED, b"true") in headers
            return response

    async def _unary(
        self,
        method: Method,
        call: Call,
        request: bytes,
        headers: Headers,
        beside: Beside | None,
        key: str | None,
        control: bytes,
    ) -> bytes:
        plan = self._limits.plan(method.path)
        if plan is None:
            return (await self._kept(method, call, request, headers, beside, key, control))[0]
        entry = await self._limits.enter(plan, call, headers)
        return await self._entered(entry, method, call, request, headers, beside, key, control)

    async def _entered(
        self,
        entry: Entry,
        method: Method,
        call: Call,
        request: bytes,
        headers: Headers,
        beside: Beside | None,
        key: str | None,
        control: bytes,
    ) -> bytes:
        units: float | None = 0.0
        told = Beside() if beside is None and entry.counts_units else beside
        try:
            response, made = await self._kept(method, call, request, headers, told, key, control)
            # What costs no agent anything costs the caller nothing.
            units = _units(told) if made else 0.0
        except rpc.Error as failed:
            units = 0.0 if _refused_here(failed) else _units(told)
            raise
        except BaseException:
            units = None
            raise
        finally:
            entry.done(units)
        return response

    def stream(
        self,
        method: Method,
        call: Call,
        request: bytes,
        *,
        headers: Headers,
        beside: Beside | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Calls a server-streaming method and yields its messages. Arguments and errors as `unary`."""
        if self._keeps:
            call.kept = request

        return self._streamed(
            lambda: self.enter(method, call, headers),
            method,
            call,
            self._streaming(method, call, request),
            beside,
        )

    def converse(
        self,
        method: Method,
        call: Call,
        requests: AsyncIterator[bytes],
        *,
        headers: Headers,
        beside: Beside | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Calls a method with a stream of requests and yields its messages. Arguments and errors as `unary`."""

        def begin(told: Beside | None) -> AsyncGenerator[bytes, None]:
            return self.upstream.converse(
                method.agent.name, method.path, requests, call.deadline, told
            )

        return self._streamed(
            lambda: self.enter(method, call, headers), method, call, begin, beside
        )

    def _streaming(self, method: Method, call: Call, request: bytes) -> _Begin:
        return lambda told: self.upstream.stream(
            method.agent.name,
            method.path,
            request,
            call.deadline,
            told,
            repeatable=method.idempotency.repeatable,
        )

    async def _streamed(
        self,
        enter: Callable[[], Awaitable[Entry | None]],
        method: Method,
        call: Call,
        begin: _Begin,
        beside: Beside | None,
    ) -> AsyncGenerator[bytes, None]:
        with self.noted(method, call):
            entry = await enter()
            if entry is not None and beside is None:
                beside = Beside()
            try:
                async with contextlib.aclosing(begin(beside)) as messages:
                    async for message in messages:
                        yield message
            except rpc.Error as failed:
                raise told_of(method, failed) from failed.__cause__
            finally:
                if entry is not None:
                    assert beside is not None
                    entry.done(units_in(beside.trailing))

    async def later(
        self, method: Method, call: Call, request: bytes, asked: Headers, *, headers: Headers
    ) -> Asked:
        """Begins a job for a call. It counts for the limits as it is accepted; what it costs is put right as it ends.

        Args:
            method: what is to be called.
            call: who calls.
            request: the message.
            asked: what the caller says about the job (`weft.gateway.jobs.asked`).
            headers: takes what guards tell the caller, of a call that fails too.

        Raises:
            rpc.Error: no job can be begun.
        """
        if self._keeps:
            call.kept = request
        with self.noted(method, call) as note:
            entry = await self.enter(method, call, headers)
            try:
                begun = await self._asking.begin(call, method, request, asked)
            finally:
                if entry is not None:
                    entry.done()
            note.job = begun.job.id
            return begun

    def spent(self, path: str, identity: Identity, units: float) -> None:
        """What a job cost that has ended, as its agent says."""
        self._limits.spent(path, identity, units)

    def noted(self, method: Method, call: Call) -> Noted:
        """For the length of a call: tells the audit log of it, if it has effects."""
        silent = method.idempotency is Idempotency.NO_SIDE_EFFECTS
        return Noted(None if silent else self._audit, method.full_name, call)

    async def admitted(
        self, method: Method, call: Call, request: bytes, *, headers: Headers
    ) -> Admitted:
        """Lets in a call that is made as a job of this process; its deadline is the job's.

        Raises:
            LimitReached: not now.
        """
        if self._keeps:
            call.kept = request
        return Admitted(
            self, method, call, request, await self.enter(method, call, headers), headers
        )

    async def enter(self, method: Method, call: Call, headers: Headers) -> Entry | None:
        """Lets in a call that its door makes by itself; `done` of the entry must be called in the end.

        Raises:
            LimitReached: not now.
        """
        plan = self._limits.plan(method.path)
        return None if plan is None else await self._limits.enter(plan, call, headers)

    async def _kept(
        self,
        method: Method,
        call: Call,
        request: bytes,
        headers: Headers,
        beside: Beside | None,
        key: str | None,
        control: bytes,
    ) -> tuple[bytes, bool]:
        """The response, and whether an agent was asked for it."""
        try:
            if key is not None and method.idempotency is not Idempotency.NO_SIDE_EFFECTS:
                return await self._once(method, call, request, headers, beside, key)
            policy = self._cache.policy(method.path)
            if policy is None:
                return await self._call(method, call, request, beside), True
            asked = Beside() if beside is None else beside
            made = False

            async def make() -> tuple[bytes, Beside]:
                nonlocal made
                made = True
                # One of its own: who asked first may be gone when it is filled.
                heard = Beside(sent=asked.sent)
                return await self._call(method, call, request, heard), heard

            response = await self._cache.answer(
                policy, call, request, beside=asked, headers=headers, control=control, make=make
            )
        except rpc.Error as failed:
            raise told_of(method, failed) from failed.__cause__
        return response, made

    async def _once(
        self,
        method: Method,
        call: Call,
        request: bytes,
        headers: Headers,
        beside: Beside | None,
        key: str,
    ) -> tuple[bytes, bool]:
        assert call.deadline is not None
        answered = await self._idempotent.once(
            subject_of(call.identity),
            key,
            method=method.path,
            request=request,
            deadline=call.deadline,
            make=lambda: self._call(method, call, request, beside),
        )
        if answered.replayed:
            headers.append((REPLAYED, b"true"))
        return answered.response, not answered.replayed

    async def _call(
        self, method: Method, call: Call, request: bytes, beside: Beside | None
    ) -> bytes:
        assert call.deadline is not None
        if not method.idempotency.repeatable:
            return await self.upstream.unary(
                method.agent.name, method.path, request, call.deadline, beside
            )
        return await self.upstream.repeatable(
            method.agent.name,
            method.path,
            request,
            call.deadline,
            beside,
            hedge_after=method.skill.hedge_after.total_seconds(),
        )


class Admitted:
    """A call that was let in: what is left to do is to make it, or to drop it (`weft.gateway.jobs.direct.Work`)."""

    __slots__ = ("_call", "_entry", "_guarded", "_headers", "_method", "_request")

    def __init__(
        self,
        guarded: Guarded,
        method: Method,
        call: Call,
        request: bytes,
        entry: Entry | None,
        headers: Headers,
    ) -> None:
        self._guarded = guarded
        self._method = method
        self._call = call
        self._request = request
        self._entry = entry
        self._headers = headers

    async def unary(self) -> bytes:
        """Calls a unary method.

        Raises:
            rpc.Error: as the agent answered, or the guard that refuses the call.
        """
        asked = (self._method, self._call, self._request, self._headers)
        with self._guarded.noted(self._method, self._call):
            if self._entry is None:
                return (await self._guarded._kept(*asked, None, None, b""))[0]  # noqa: SLF001 its own kind
            return await self._guarded._entered(self._entry, *asked, Beside(), None, b"")  # noqa: SLF001

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Calls a server-streaming method and yields its messages. Errors as `unary`."""
        guarded, method, call = self._guarded, self._method, self._call

        async def enter() -> Entry | None:
            return self._entry

        begin = guarded._streaming(method, call, self._request)  # noqa: SLF001 its own kind
        return guarded._streamed(enter, method, call, begin, None)  # noqa: SLF001

    def drop(self) -> None:
        """It is not made here."""
        if self._entry is not None:
            self._entry.done()


def told_of(method: Method, failed: rpc.Error) -> rpc.Error:
    """An error, with the skill's `fallback_text` where the agent could not be reached."""
    if method.skill.fallback_text and isinstance(failed, CircuitOpen | AgentUnavailable):
        failed.metadata["fallback_text"] = method.skill.fallback_text
    return failed


def _units(told: Beside | None) -> float | None:
    return None if told is None else units_in(told.trailing)


def _refused_here(failed: rpc.Error) -> bool:
    return isinstance(failed, CircuitOpen) or (
        isinstance(failed, AgentUnavailable) and failed.unsent
    )
