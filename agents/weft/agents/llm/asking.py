"""Asks until there is a whole answer: again, another model, or not at all, within one deadline."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from weft import rpc
from weft.agents.breaker import Breaker
from weft.agents.llm.errors import (
    CircuitOpen,
    Failure,
    ModelOverloaded,
    ModelRateLimited,
)
from weft.agents.llm.money.books import Books, Opened, usd
from weft.agents.llm.money.ledger import Entry
from weft.agents.llm.prices import FREE, NANO, Price, Prices
from weft.agents.llm.replies import Delta, Heard, Reply, Request
from weft.agents.llm.usage import NOTHING, Usage
from weft.agents.llm.wire import Client
from weft.agents.llm.wire.spans import Spans
from weft.telemetry.instruments import Instruments

_FIRST_PAUSE = 0.5  # seconds
_LONGEST_PAUSE = 8.0
_LEAST_IDLE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that may be asked.

    Attributes:
        model: as its endpoint calls it.
        client: of the endpoint.
        breaker: of this model there.
        prices: what it costs, unless the endpoint is free.
    """

    model: str
    client: Client
    breaker: Breaker
    prices: Prices

    @property
    def price(self) -> Price | None:
        """What it costs; None: not known."""
        return FREE if self.client.endpoint.free else self.prices.of(self.model)


@dataclass(slots=True)
class _Tally:
    usage: Usage = NOTHING
    cost: int | None = 0
    attempts: int = 0

    def add(self, usage: Usage, cost: int | None) -> None:
        self.usage += usage
        self.cost = None if cost is None or self.cost is None else self.cost + cost


class Asker:
    """Asks the models of one entry of the settings.

    Args:
        candidates: the model, then those that stand in for it.
        agent: in whose name, where no call is served.
        books: who pays.
        metrics: where requests are counted; None: nowhere.
        retries: how often the last candidate is asked again; the ones before it once, and not where they are overloaded.
        spread: a number in [0, 1) for the jitter of pauses.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        agent: str,
        books: Books,
        metrics: Instruments | None = None,
        retries: int = 2,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.candidates = tuple(candidates)
        self._agent = agent
        self._books = books
        self._metrics = metrics
        self._retries = retries
        self._spread = spread

    async def ask(
        self,
        request: Callable[[Candidate], Request],
        deadline: rpc.Deadline,
        *,
        restart: bool = False,
    ) -> AsyncGenerator[Delta | Reply]:
        """Deltas of the answer, and at last the whole of it.

        Args:
            request: what a candidate is asked.
            deadline: for all attempts together.
            restart: whether another attempt may be made when text was given out already.

        Raises:
            rpc.Error: one of `weft.agents.llm.errors`: that of the last attempt.
        """
        tally = _Tally()
        former: Failure | None = None
        for place, candidate in enumerate(self.candidates):
            last = place == len(self.candidates) - 1
            tried = 0
            while True:
                shown = False
                try:
                    asked = self._attempt(candidate, request(candidate), deadline, tally, last=last)
                    async with contextlib.aclosing(asked) as pieces:
                        async for piece in pieces:
                            if isinstance(piece, Reply):
                                yield replace(piece, fallback=place > 0)
                                return
                            shown = True
                            yield piece
                except Failure as failed:
                    if shown and not restart:
                        raise
                    pause = self._pause(failed, tried, deadline, last=last)
                    # What opened a circuit tells more than that it is open.
                    told = former if isinstance(failed, CircuitOpen) and former else failed
                    if pause is None and (last or not told.elsewhere or deadline.expired()):
                        raise told from told.__cause__
                    former = told
                if shown:
                    yield Delta(restart=True)
                if pause is None:
                    break
                await asyncio.sleep(pause)
                tried += 1

    def _pause(
        self, failed: Failure, tried: int, deadline: rpc.Deadline, *, last: bool
    ) -> float | None:
        """Seconds until the same model is asked again; None: it is not."""
        busy = isinstance(failed, ModelOverloaded | ModelRateLimited)
        most = self._retries if last else 0 if busy else 1
        if not failed.again or tried >= min(most, self._retries):
            return None
        asked: timedelta | None = getattr(failed, "retry_after", None)
        pause = min(_FIRST_PAUSE * 2**tried, _LONGEST_PAUSE) * (1 - self._spread() / 4)
        if asked is not None:
            pause = asked.total_seconds()
        return pause if pause < deadline.seconds() else None

    async def _attempt(
        self,
        candidate: Candidate,
        request: Request,
        deadline: rpc.Deadline,
        tally: _Tally,
        *,
        last: bool,
    ) -> AsyncGenerator[Delta | Reply]:
        endpoint = candidate.client.endpoint
        if not candidate.breaker.enter():
            where = {"model": candidate.model, "endpoint": endpoint.name}
            raise CircuitOpen(retry_after=candidate.breaker.wait, metadata=where)
        outcome, told, began = candidate.breaker.left, "CANCELLED", time.monotonic()
        try:
            opened = await self._books.open(
                self._agent, endpoint.name, candidate.model, request, candidate.price
            )
            request = replace(request, max_tokens=opened.output)
            heard, spans, cost = Heard(), Spans(), None
            tally.attempts += 1
            idle = endpoint.idle.total_seconds()
            if not last:
                # The next one needs its time as well.
                idle = max(_LEAST_IDLE, min(idle, deadline.seconds() / 2))
            try:
                spans.watch()
                listening = candidate.client.listen(candidate.model, request, deadline, idle, heard)
                async with contextlib.aclosing(listening) as pieces:
                    async for text in pieces:
                        yield Delta(text=text)
                outcome = candidate.breaker.succeeded
                told = "OK"
            except rpc.Error as failed:
                told = failed.reason
                raise
            finally:
                try:
                    cost = await self._books.close(opened, heard.usage)
                finally:
                    tally.add(heard.usage, cost)
                    spans.finish(_attributes(opened, request, heard, cost))
                    self._count(opened.entry, told, time.monotonic() - began, heard.usage, cost)
        except Failure as failed:
            if failed.trouble:
                outcome = candidate.breaker.failed
            raise
        finally:
            outcome()
        yield Reply(
            text="".join(heard.text),
            blocks=tuple(heard.blocks),
            uses=tuple(heard.uses),
            stop=heard.stop,
            usage=tally.usage,
            cost=tally.cost,
            model=heard.model or candidate.model,
            endpoint=endpoint.name,
            attempts=tally.attempts,
            prompt=request.question.version,
        )

    def _count(
        self, entry: Entry, outcome: str, seconds: float, usage: Usage, cost: int | None
    ) -> None:
        if self._metrics is None:
            return
        tokens = {
            "input": usage.input,
            "cache_read": usage.cache_read,
            "cache_write": usage.cache_write_5m + usage.cache_write_1h,
            "output": usage.output,
        }
        self._metrics.model_request(
            entry.agent, entry.model, outcome, seconds, tokens, (cost or 0) / NANO
        )


def _attributes(
    opened: Opened, request: Request, heard: Heard, cost: int | None
) -> dict[str, str | int | bool]:
    """What the SDK does not know of a request, and what it does not count of one that broke off."""
    usage, call = heard.usage, opened.call
    agent, endpoint = opened.entry.agent, opened.entry.endpoint
    found: dict[str, str | int | bool] = {
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.output_tokens": usage.output,
        "weft.model.endpoint": endpoint,
        "weft.model.usage_estimated": usage.estimated,
    }
    if endpoint != "claude":
        found["gen_ai.provider.name"] = endpoint
    if agent:
        found["weft.agent"] = found["gen_ai.agent.name"] = agent
    if call is not None and call.run:
        found["weft.run"] = call.run
    if call is not None and call.conversation:
        found["gen_ai.conversation.id"] = call.conversation
    if request.question.version:
        found["weft.prompt"] = request.question.version
    if cost is not None:
        found["weft.model.cost_nano_usd"] = cost
        found["weft.model.cost_usd"] = usd(cost)
    return found
