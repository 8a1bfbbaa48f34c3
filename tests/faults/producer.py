"""A producer that repeats each message, with its id, until it is accepted; also after its own death."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tests.faults import workload
from tests.faults.connecting import AGAIN, PATIENCE, Addresses, cancelled, channel, worth_again
from tests.faults.history import Writer, read_file

from weft.v1 import broker_pb2, broker_pb2_grpc, message_pb2

_TICK = 0.015
_FRAME = 200
_MOST_OPEN = 3_000
_BEHIND = 4.0  # seconds of its rate that a producer catches up with after an outage
_MOST_WAITING = 20.0  # seconds for which a request is repeated
_REPEATED = 0.02  # of the accepted messages are published again
_AGAIN = frozenset(code.value[0] for code in AGAIN)
_PIPELINED = frozenset({"hot"})  # queues whose keys have several messages on their way


@dataclass(frozen=True, slots=True)
class Settings:
    """What a producer is told."""

    name: str
    folder: str
    addresses: list[str]
    seed: int = 0
    rate: float = 200.0
    askers: int = 2
    only: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Sending:
    """A message on its way. `kind`: the event to note when it is sent."""

    plan: workload.Plan
    kind: str
    since: float = 0.0


class Past:
    """What earlier lives of a producer left open."""

    def __init__(self, folder: Path, name: str, only: tuple[str, ...]) -> None:
        self.open: dict[str, workload.Plan] = {}
        self.asked: dict[str, None] = {}
        self.number = 0
        self.lives = 0
        self._only = only
        for path in sorted(folder.glob(f"{name}.*.log")):
            self.lives += 1
            for event in read_file(path):
                self._take(event.kind, event.id, event.at, event.note)

    def _take(self, kind: str, name: str, at: int, note: str) -> None:
        if kind in {"intent", "ask"}:
            self.number = max(self.number, int(name.rsplit("-", 1)[1]) + 1)
        if kind == "intent":
            plan = self.open[name] = workload.plan(name, at, self._only)
            label, _, value = note.partition("=")
            plan.due, plan.expires = (
                int(value) if label == one else 0 for one in ("due", "expires")
            )
        elif kind == "ask":
            self.asked[name] = None
        elif kind in {"receipt", "refused"}:
            self.open.pop(name, None)
        elif kind == "answer":
            self.asked.pop(name, None)


class Producer:
    def __init__(self, settings: Settings, stop: asyncio.Event) -> None:
        folder = Path(settings.folder)
        self._settings = settings
        self._only = tuple(settings.only)
        self._stop = stop
        past = Past(folder, settings.name, self._only)
        self._choice = random.Random(f"{settings.seed}-{settings.name}-{past.lives}")
        self._addresses = Addresses(settings.addresses, self._choice.randrange(8))
        self._history = Writer(folder / f"{settings.name}.{past.lives:03}.log")
        self._numbers = itertools.count(past.number)
        self._open = {name: Sending(plan, "resend") for name, plan in past.open.items()}
        self._busy = {(one.plan.recipient, one.plan.key) for one in self._open.values()}
        self._asked = deque(past.asked)
        self._budget, self._budget_at = 0.0, time.monotonic()
        # Of the present stream:
        self._queue: deque[Sending] = deque()
        self._later: list[tuple[float, int, Sending]] = []
        self._sent: dict[int, Sending] = {}
        self._places = itertools.count()

    async def run(self) -> None:
        """Until it is asked to end and nothing is open."""
        askers = [asyncio.create_task(self._ask_on()) for _ in range(self._settings.askers)]
        try:
            while not self._finished():
                async with channel(self._addresses.next()) as found:
                    await self._converse(broker_pb2_grpc.BrokerServiceStub(found))
                await asyncio.sleep(self._choice.uniform(0.05, 0.2))
            await asyncio.gather(*askers)
        finally:
            await cancelled(*askers)
            self._history.close()

    def _finished(self) -> bool:
        return self._stop.is_set() and not self._open and not self._sent

    async def _converse(self, stub: Any) -> None:
        """One stream, for as long as it lasts."""
        call = stub.PublishStream()
        for one in self._open.values():
            one.kind = "resend" if one.since else one.kind
        self._queue = deque(self._open.values())
        self._sent, self._later, self._places = {}, [], itertools.count()
        sending = asyncio.create_task(self._send_on(call))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._on_response(response)
        except grpc.aio.AioRpcError as error:
            if not worth_again(error):
                raise
        except asyncio.CancelledError:
            if (this := asyncio.current_task()) is not None and this.cancelling():
                raise
        finally:
            await cancelled(sending)
            call.cancel()

    async def _send_on(self, call: Any) -> None:
        try:
            while not (self._finished() or self._hangs()):
                if frame := list(itertools.islice(self._next(), _FRAME)):
                    await self._send(call, frame)
                await asyncio.sleep(_TICK)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError):
            pass
        call.cancel()

    def _hangs(self) -> bool:
        oldest = next(iter(self._sent.values()), None)
        return oldest is not None and time.monotonic() - oldest.since > PATIENCE

    async def _send(self, call: Any, frame: list[Sending]) -> None:
        now = time.monotonic()
        for one in frame:
            self._note(one)
            one.since = now
            self._sent[next(self._places)] = one
        self._history.write()
        messages = [one.plan.message(self._settings.name) for one in frame]
        async with asyncio.timeout(PATIENCE):
            await call.write(broker_pb2.PublishStreamRequest(messages=messages))

    def _note(self, one: Sending) -> None:
        plan, first = one.plan, one.kind == "intent"
        queues = ",".join(plan.queues) if first else ""
        self._history.note(one.kind, queues, plan.id, plan.key, note=plan.note if first else "")

    def _next(self) -> Iterator[Sending]:
        """What is to be sent now: again first, then new as the rate allows."""
        now = time.monotonic()
        while self._queue:
            yield self._queue.popleft()
        while self._later and self._later[0][0] <= now:
            yield heapq.heappop(self._later)[2]
        rate = self._settings.rate
        self._budget = min(rate * _BEHIND, self._budget + (now - self._budget_at) * rate)
        self._budget_at = now
        while self._budget >= 1 and len(self._open) < _MOST_OPEN and not self._stop.is_set():
            self._budget -= 1
            plan = workload.plan(f"{self._settings.name}-{next(self._numbers)}", only=self._only)
            place = plan.recipient, plan.key
            if plan.key and plan.recipient not in _PIPELINED:
                if place in self._busy:
                    continue
                self._busy.add(place)
            sending = self._open[plan.id] = Sending(plan, "intent")
            yield sending

    def _send_later(self, one: Sending, kind: str, seconds: float) -> None:
        one.kind = kind
        heapq.heappush(self._later, (time.monotonic() + seconds, id(one), one))

    def _on_response(self, response: broker_pb2.PublishStreamResponse) -> None:
        known = frozenset(response.duplicates)
        for number in response.accepted:
            self._on_accepted(self._sent.pop(number), known=number in known)
        for refusal in response.refusals:
            one = self._sent.pop(refusal.number)
            if refusal.status.code in _AGAIN:
                self._again(one)
            else:
                self._on_refused(one, f"{refusal.status.code} {refusal.status.message}")
        self._history.write()

    def _again(self, one: Sending) -> None:
        kind = "repeat" if one.kind == "repeat" else "resend"
        self._send_later(one, kind, self._choice.uniform(0.05, 0.2))

    def _on_refused(self, one: Sending, status: str) -> None:
        if one.plan.id in self._open:
            self._close(one.plan)
            self._history.note("refused", "", one.plan.id, note=status)

    def _on_accepted(self, one: Sending, *, known: bool) -> None:
        note = "duplicate" if known else ""
        if one.kind == "repeat":
            self._history.note("repeated", "", one.plan.id, note=note)
            return
        self._history.note("receipt", "", one.plan.id, note=note)
        self._close(one.plan)
        if self._choice.random() < _REPEATED and not self._stop.is_set():
            self._send_later(Sending(one.plan, ""), "repeat", self._choice.uniform(0, 2))

    def _close(self, plan: workload.Plan) -> None:
        self._open.pop(plan.id, None)
        self._busy.discard((plan.recipient, plan.key))

    async def _ask_on(self) -> None:
        """Makes requests, each until it has its outcome, and some of them once more."""
        while self._asked or not self._stop.is_set():
            name = self._asked.popleft() if self._asked else self._new_question()
            await self._ask(name)
            if self._choice.random() < 0.1:
                await self._ask(name)
            await asyncio.sleep(self._choice.uniform(0, 0.1))

    def _new_question(self) -> str:
        return f"{self._settings.name}-ask-{next(self._numbers)}"

    async def _ask(self, name: str) -> None:
        """Until there is an outcome, or for so long that there will be none."""
        message = workload.asked(name).message(self._settings.name)
        request = broker_pb2.RequestRequest(message=message)
        until = time.monotonic() + _MOST_WAITING
        while time.monotonic() < until:
            self._history.note("ask", workload.ASK, name, note="expires=1")
            self._history.write()
            async with channel(self._addresses.next()) as found:
                try:
                    response = await broker_pb2_grpc.BrokerServiceStub(found).Request(
                        request, timeout=PATIENCE
                    )
                except grpc.aio.AioRpcError as error:
                    if not worth_again(error):
                        raise
                else:
                    self._history.note(
                        "answer", workload.ASK, name, note=outcome_of(response.reply)
                    )
                    self._history.write()
                    return
            await asyncio.sleep(self._choice.uniform(0, 0.2))


def outcome_of(reply: message_pb2.Reply) -> str:
    """A reply as histories note it."""
    if reply.HasField("error"):
        return f"error {reply.error.code} {reply.error.message}"
    return reply.payload.decode()
