"""The tools of an agent: whoever uses one goes through here, whether it is a model, the agent's own code or another tool.

In this order: the scopes of the caller's identity, the rate, the arguments, what was kept, the record, the tool within its
time. There is no other way to a tool.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc
from google.protobuf.message import Message

from weft import rpc
from weft.agents.tools.audit.record import OK, Audit, Outcome, Use
from weft.agents.tools.audit.shown import shown
from weft.agents.tools.callers import Caller, caller_of
from weft.agents.tools.failures import ToolBroken, ToolUnknown, error_of
from weft.agents.tools.keeping import Kept, MemoryShelf, Shelf, key_of
from weft.agents.tools.observing import Watch
from weft.agents.tools.offers import Offer
from weft.agents.tools.rates import Rates
from weft.agents.tools.recording import Recording, use_of
from weft.agents.tools.tool import Tool
from weft.agents.tools.using import Counted, Using, current_use, own_uses
from weft.limits import SharedLimits
from weft.telemetry import Telemetry
from weft.v1.identity_pb2 import Identity

if TYPE_CHECKING:
    from weft.rpc.signing import Verifier

log = logging.getLogger("weft.agents.tools")

_LAST_WORDS = 1.0  # seconds that tools have to end when their toolbox is closed

ResultT = TypeVar("ResultT", bound=Message)
Read = Callable[[], Message]


class Toolbox:
    """Tools.

    Args:
        tools: each with a name of its own.
        audit: where every use is recorded.
        limits: rates that all processes share; None: this process counts alone.
        shelf: where results are kept; None: in this process.
        telemetry: where uses are counted and traced.
        verifier: believes identities; None: the server of the call did that (`Host(identity_trust=...)`).
        identity: who acts while no call is being served; None: nobody.

    Raises:
        ValueError: two tools have the same name.
    """

    def __init__(
        self,
        tools: Iterable[Tool] = (),
        *,
        audit: Audit,
        limits: SharedLimits | None = None,
        shelf: Shelf | None = None,
        telemetry: Telemetry | None = None,
        verifier: Verifier | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._tools: dict[str, Tool] = {}
        self._recording = Recording(audit)
        self._rates = Rates(limits)
        self._shelf = shelf or MemoryShelf()
        self._watch = Watch(telemetry)
        self._verifier = verifier
        self._identity = identity
        self._running: set[asyncio.Task[Message]] = set()
        self.replace((), tools)

    def add(self, tool: Tool) -> None:
        """Adds a tool.

        Raises:
            ValueError: there is one of its name.
        """
        self.replace((), [tool])

    def replace(self, former: Iterable[str], tools: Iterable[Tool]) -> None:
        """Takes tools away and adds others, at once: for those that come and go with a server.

        Raises:
            ValueError: two would have the same name; nothing has changed then.
        """
        gone = set(former)
        left = {name: each for name, each in self._tools.items() if name not in gone}
        for each in tools:
            if each.name in left:
                raise ValueError(f"there is a tool {each.name} already")
            left[each.name] = each
        self._tools = left

    def __getitem__(self, name: str) -> Tool:
        """The tool of a name. Raises ToolUnknown."""
        found = self._tools.get(name)
        if found is None:
            raise ToolUnknown(f"There is no tool {name[:80]!r}.")
        return found

    def __iter__(self) -> Iterator[Offer]:
        """What `offered` returns."""
        return iter(self.offered())

    def offered(self) -> list[Offer]:
        """The tools that the caller of the current call may use, for a model, in order of their names.

        Take it once for each piece of work: equal uses of one offer have idempotency keys of their own.
        """
        caller = self._caller()
        counted = Counted()
        return [
            Offer(each, self._use, counted)
            for _, each in sorted(self._tools.items())
            if caller.may(each.required)
        ]

    async def use(
        self, name: str, request: Message, result: type[ResultT], *, key: str = ""
    ) -> ResultT:
        """Uses a tool.

        Args:
            name: of the tool.
            request: its arguments.
            result: what it results in.
            key: idempotency key for what it does; empty: one made here, the same when the call being served comes again.

        Raises:
            rpc.Error: as the tool says, or ScopeMissing, ToolLimited, ToolUnknown, ToolBroken, DeadlineExceeded.
            TypeError: the tool takes or results in something else.
        """
        tool = self[name]
        if not isinstance(request, tool.request) or tool.response is not result:
            raise TypeError(
                f"{name} takes {tool.request.DESCRIPTOR.full_name} and gives {tool.response.DESCRIPTOR.full_name}"
            )
        outer = current_use()
        counted, cause = (
            own_uses(rpc.current_call()) if outer is None else (outer.counted, outer.key)
        )
        found = await self._use(
            tool, lambda: request, lambda asked: key or counted.key(cause, name, asked)
        )
        assert isinstance(found, result)
        return found

    async def close(self) -> None:
        """Ends what still runs, and returns when all is recorded; what will not end is left behind."""
        for each in self._running:
            each.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=_LAST_WORDS)
        await self._recording.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _caller(self) -> Caller:
        return caller_of(rpc.current_call(), self._verifier, self._identity)

    async def _use(self, tool: Tool, read: Read, key: Callable[[Message], str]) -> Message:
        """One use, from the question whether it may be to the record of what came of it."""
        caller = self._caller()
        made = _Made(caller, use_of(tool, rpc.current_call(), caller))
        with self._watch.span(tool):
            try:
                result = await self._admitted(tool, read, key, made)
            except asyncio.CancelledError:
                await self._ended(tool, made, grpc.StatusCode.CANCELLED, "CANCELLED")
                raise
            except Exception as failed:
                error = error_of(tool.name, failed)
                await self._ended(tool, made, error.code, error.reason)
                if error is failed:
                    raise
                raise error from failed
            await self._ended(tool, made, grpc.StatusCode.OK, "")
            return result

    async def _admitted(
        self, tool: Tool, read: Read, key: Callable[[Message], str], made: _Made
    ) -> Message:
        caller = made.caller
        caller.check(tool)
        await self._rates.enter(tool, caller)
        request = read()
        made.use = dataclasses.replace(made.use, arguments=shown(request))
        place = key_of(tool, request, caller) if tool.keeping is not None else ""
        if place and (found := await self._kept(tool, place, made)) is not None:
            return found
        using = Using(tool.name, key(request), current_use())
        result = await self._run(using, tool, request, made)
        if tool.keeping is not None:
            kept = Kept(result=result.SerializeToString(), needs=frozenset(using.needs))
            await self._shelf.put(place, kept, tool.keeping.ttl)
        return result

    async def _kept(self, tool: Tool, place: str, made: _Made) -> Message | None:
        kept = await self._shelf.get(place)
        hit = kept is not None and made.caller.may(kept.needs)
        self._watch.kept(tool, hit=hit)
        if kept is None or not hit:
            return None
        if (outer := current_use()) is not None:
            outer.needed(kept.needs)
        made.kept = True
        await self._recording.note(made.use, made.outcome(OK))
        made.told = True
        return tool.response.FromString(kept.result)

    async def _run(self, using: Using, tool: Tool, request: Message, made: _Made) -> Message:
        using.needed(tool.required)
        deadline = rpc.Deadline.after(tool.timeout).min(rpc.Deadline.current())
        deadline.check()
        await self._recording.begin(made.use, deadline)
        made.begun = True
        with deadline.applied(), using.current():
            result = await self._within(tool, request, deadline)
        if not isinstance(result, tool.response):
            log.error("the tool %s resulted in %s", tool.name, type(result).__name__)
            raise ToolBroken
        return result

    async def _within(self, tool: Tool, request: Message, deadline: rpc.Deadline) -> Message:
        # In a task of its own: a tool that does not let itself be cancelled is left behind, and not waited for.
        task = asyncio.ensure_future(tool.run(request))
        self._running.add(task)
        task.add_done_callback(self._left)
        try:
            await asyncio.wait({task}, timeout=deadline.seconds())
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            raise rpc.DeadlineExceeded(f"{tool.name} did not end in time.")
        if task.cancelled():
            raise rpc.Cancelled(f"{tool.name} was cancelled.")
        return task.result()

    def _left(self, task: asyncio.Task[Message]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # of one that was left behind nobody asks

    async def _ended(self, tool: Tool, made: _Made, code: grpc.StatusCode, reason: str) -> None:
        self._watch.ended(tool, code, made.seconds, reason)
        if made.told:
            return
        made.told = True
        outcome = made.outcome(code.name, reason)
        if made.begun:
            await self._recording.end(made.use, outcome)
            return
        try:
            await self._recording.note(made.use, outcome)
        except rpc.Error:
            said = dataclasses.replace(made.use, arguments=None)
            log.exception("a use that was refused is not recorded: %s", said)


class _Made:
    """What is known of a use so far."""

    __slots__ = ("_started", "begun", "caller", "kept", "told", "use")

    def __init__(self, caller: Caller, use: Use) -> None:
        self.caller = caller
        self.use = use
        self.begun = False
        self.kept = False
        self.told = False
        self._started = perf_counter()

    @property
    def seconds(self) -> float:
        """For how long it has been going on."""
        return perf_counter() - self._started

    def outcome(self, code: str, reason: str = "") -> Outcome:
        """What came of it."""
        duration = timedelta(seconds=self.seconds)
        return Outcome(code=code, reason=reason, duration=duration, kept=self.kept)
