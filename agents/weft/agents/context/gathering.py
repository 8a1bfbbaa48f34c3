"""Asks all providers at once, within one deadline; what does not come in time is named."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from weft import rpc
from weft.agents.breaker import Breaker, BreakerSettings
from weft.agents.context.budget import estimated, fitted
from weft.agents.context.cache import Cache, Entry
from weft.agents.context.model import Context, Fact, How, Missing, Need, Piece, Provider

log = logging.getLogger("weft.agents")

_CACHE_SHARE = 0.2  # of the time: a cache that takes longer is done without
# Said of the caller, not of the provider.
_NOT_ITS_FAULT = (
    rpc.InvalidArgument,
    rpc.PermissionDenied,
    rpc.Unauthenticated,
    rpc.FailedPrecondition,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A provider, and how it is asked."""

    name: str
    provider: Provider
    weight: float = field(default=1.0, kw_only=True)
    """How much its facts count beside those of others."""
    timeout: timedelta | None = field(default=None, kw_only=True)
    """How long it may take, where that is less than the deadline."""
    ttl: timedelta = field(default=timedelta(seconds=60), kw_only=True)
    """How long what it says is good; 0: it is always asked."""
    stale: timedelta = field(default=timedelta(hours=1), kw_only=True)
    """How long what it said stands in for it when it says nothing."""
    keyed_by: tuple[str, ...] = field(default=("customer",), kw_only=True)
    """The fields of a need that its answer depends on, beside the tenant."""
    fallback: Callable[[Need], Sequence[Fact]] | None = field(default=None, kw_only=True)
    """What stands in where nothing that it said does."""
    breaker: BreakerSettings = field(default_factory=BreakerSettings, kw_only=True)

    def key(self, need: Need) -> str:
        """Under which name its answer is kept, of those about a customer."""
        given = [repr(getattr(need, name)) for name in self.keyed_by if name != "customer"]
        if "attributes" in self.keyed_by:
            given.append(repr(sorted(need.attributes.items())))
        digest = hashlib.sha256("\n".join(given).encode()).hexdigest()[:32] if given else ""
        return f"{self.name}:{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What came of a source."""

    source: Source
    entry: Entry | None
    how: How = How.ASKED
    why: str = ""


class Enrichment:
    """Gathers context. Close it by `close()`.

    Args:
        sources: what is asked, each under a name of its own.
        cache: where answers are kept; None: nowhere.
        within: how long gathering may take; less where the current deadline is nearer.
        budget: tokens of the facts.
        count: counts the tokens of a text; by default an estimate.

    Raises:
        ValueError: two sources have one name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        cache: Cache | None = None,
        within: timedelta = timedelta(seconds=2),
        budget: int = 2_000,
        count: Callable[[str], int] = estimated,
    ) -> None:
        if len({source.name for source in sources}) < len(sources):
            raise ValueError("each source needs a name of its own")
        self._sources = tuple(sources)
        self._cache = cache
        self._within = within
        self._budget = budget
        self._count = count
        self._breakers = {
            source.name: Breaker(source.breaker, f"context {source.name}") for source in sources
        }
        self._left: set[asyncio.Task[Any]] = set()

    async def gather(self, need: Need) -> Context:
        """What is known. It never takes longer than `within`, and never fails: what is missing is named."""
        begun = time.monotonic()
        deadline = rpc.Deadline.after(self._within)
        if (outer := rpc.Deadline.current()) is not None:
            deadline = deadline.min(outer)
        with deadline.applied():
            kept = await self._kept(need, deadline)
            answers = await self._answers(need, kept, deadline)
        self._keep(need, answers)
        missing = [Missing(provider=a.source.name, why=a.why) for a in answers if a.entry is None]
        taken, spent, left_out = fitted(_pieces(answers), self._budget, self._count)
        return Context(
            pieces=tuple(taken),
            missing=tuple(missing),
            tokens=spent,
            left_out=left_out,
            took=timedelta(seconds=time.monotonic() - begun),
        )

    async def close(self) -> None:
        """Waits for what was left behind: providers that were cancelled, answers that are being kept."""
        for task in self._left:
            if task.get_name() != "keeping context":
                task.cancel()
        while self._left:
            await asyncio.wait(self._left)

    async def _kept(self, need: Need, deadline: rpc.Deadline) -> Mapping[str, Entry]:
        if self._cache is None:
            return {}
        try:
            async with asyncio.timeout(deadline.seconds() * _CACHE_SHARE):
                return await self._cache.get(need.tenant, need.customer)
        except TimeoutError:
            return {}

    async def _answers(
        self, need: Need, kept: Mapping[str, Entry], deadline: rpc.Deadline
    ) -> list[_Answer]:
        """What came of each source, in order."""
        answers: dict[str, _Answer] = {}
        asked: dict[str, asyncio.Task[_Answer]] = {}
        for source in self._sources:
            entry = kept.get(source.key(need))
            if entry is not None and entry.age <= source.ttl:
                answers[source.name] = _Answer(source=source, entry=entry, how=How.CACHED)
            elif not self._breakers[source.name].enter():
                why = "it failed again and again, and is left alone for a while"
                answers[source.name] = _instead(source, need, entry, why)
            else:
                coroutine = self._ask(source, need, entry)
                asked[source.name] = asyncio.create_task(coroutine, name=f"context {source.name}")
        if asked:
            await self._wait(asked, deadline)
        for source in self._sources:
            if (task := asked.get(source.name)) is None:
                continue
            if task.done() and not task.cancelled():
                answers[source.name] = task.result()
                continue
            self._breakers[source.name].failed()
            task.cancel()
            self._leave(task)
            entry = kept.get(source.key(need))
            answers[source.name] = _instead(source, need, entry, "it did not answer in time")
        return [answers[source.name] for source in self._sources]

    async def _wait(
        self, asked: Mapping[str, asyncio.Task[_Answer]], deadline: rpc.Deadline
    ) -> None:
        try:
            await asyncio.wait(asked.values(), timeout=deadline.seconds())
        except asyncio.CancelledError:
            for name, task in asked.items():
                task.cancel()
                self._leave(task)
                self._breakers[name].left()
            raise

    async def _ask(self, source: Source, need: Need, entry: Entry | None) -> _Answer:
        breaker = self._breakers[source.name]
        limit = source.timeout.total_seconds() if source.timeout is not None else None
        try:
            async with asyncio.timeout(limit):
                facts = tuple(await source.provider(need))
        except TimeoutError:
            breaker.failed()
            return _instead(source, need, entry, "it did not answer in time")
        except Exception as failed:  # noqa: BLE001 a provider is anybody's code; the others go on
            return self._failed(source, need, entry, failed)
        breaker.succeeded()
        return _Answer(source=source, entry=Entry(facts=facts, at=datetime.now(UTC)))

    def _failed(
        self, source: Source, need: Need, entry: Entry | None, failed: Exception
    ) -> _Answer:
        breaker = self._breakers[source.name]
        if isinstance(failed, grpc.aio.AioRpcError):
            failed = rpc.error_from_call(failed)
        if isinstance(failed, rpc.NotFound):
            breaker.succeeded()
            return _Answer(source=source, entry=Entry(facts=(), at=datetime.now(UTC)))
        if isinstance(failed, _NOT_ITS_FAULT):
            breaker.left()
        else:
            breaker.failed()
        why = failed.reason if isinstance(failed, rpc.Error) else type(failed).__name__
        log.warning("a source of context failed", extra={"source": source.name, "failure": why})
        return _instead(source, need, entry, f"it failed: {why}")

    def _keep(self, need: Need, answers: Sequence[_Answer]) -> None:
        """Keeps what was said just now; nobody waits for it."""
        fresh = {
            answer.source.key(need): answer.entry
            for answer in answers
            if answer.how is How.ASKED and answer.entry is not None and answer.source.ttl
        }
        if self._cache is not None and fresh:
            coroutine = self._cache.put(need.tenant, need.customer, fresh)
            self._leave(asyncio.create_task(coroutine, name="keeping context"))

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._left.add(task)
        task.add_done_callback(self._left.discard)


def _instead(source: Source, need: Need, entry: Entry | None, why: str) -> _Answer:
    """What stands in for a provider that says nothing."""
    if entry is not None and entry.age <= source.stale:
        return _Answer(source=source, entry=entry, how=How.STALE, why=why)
    if source.fallback is not None:
        facts = tuple(source.fallback(need))
        made = Entry(facts=facts, at=datetime.now(UTC))
        return _Answer(source=source, entry=made, how=How.FALLBACK, why=why)
    return _Answer(source=source, entry=None, why=why)


def _pieces(answers: Sequence[_Answer]) -> Iterator[Piece]:
    for answer in answers:
        if answer.entry is None:
            continue
        for fact in answer.entry.facts:
            yield Piece(
                provider=answer.source.name,
                fact=fact,
                how=answer.how,
                asked_at=answer.entry.at,
                score=answer.source.weight * fact.relevance,
            )
