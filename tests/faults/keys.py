"""Idempotency keys while gateways are killed: `python tests/faults/keys.py`.

Many clients ask with few keys, at two doors of two gateways, which are killed with -9 on the way and started again. Every key
is to be executed at most once, and answered the same from its first answer on. Exits with 1 when one was not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import grpc
import httpx
from tests.faults.gateways import GatewayChild, gateways

from weft import embedded, rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2
from weft.registry import Registry
from weft.rpc.testing import wait_until

_METHOD = "/weft.echo.v1.EchoService/SayOnce"
_SECONDS = 3.0  # deadline of each call
# A call is undecided for its deadline and 10 s more, when its gateway died.
_UNDECIDED = timedelta(seconds=40)
_AT_ONCE = 32
_MIXED = 8  # keys in use at a time, about
_PENDING = "IDEMPOTENCY_IN_PROGRESS"
_UNKNOWN = "IDEMPOTENCY_OUTCOME_UNKNOWN"
# What a gateway says that has just been started, or a client that reaches none.
_NOT_YET = frozenset({"UNAVAILABLE", "NOT_FOUND", "UNIMPLEMENTED"})

Answer = tuple[str, str]
Say = Callable[[str], None]


class Counting(Echo):
    """Has effects: counts them by what was said, and answers differently each time."""

    def __init__(self) -> None:
        super().__init__("counting")
        self.done: Counter[str] = Counter()
        self.running = 0

    async def SayOnce(self, request: Any, context: Any) -> Any:
        """Says something that it never said before; every tenth key is refused, just as newly."""
        self.done[request.say.text] += 1
        self.running += 1
        try:
            await super().Say(request.say, context)
        finally:
            self.running -= 1
        new = f"{random.getrandbits(64):x}"
        if request.say.text.endswith("0"):
            raise rpc.FailedPrecondition(f"no: {new}", reason="NOT_NOW")
        return echo_pb2.SayOnceResponse(said=echo_pb2.SayResponse(text=new))


@dataclass(kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
        requests: that were answered.
        keys: that they had.
        kills: of gateways, with a call under way.
        executed: calls that reached the agent.
        executed_twice: keys that reached it more than once.
        answered_differently: keys with two answers.
        undecided_again: keys that were said to be in progress after they had been answered.
        never_executed: keys with an answer of the agent that it never was asked for.
        unanswered: keys without an answer in the end.
        unknown: keys whose gateway died within the call.
        in_progress: answers that the call is being made.
        lost: requests whose connection broke, or came to a gateway that was not ready; asked again.
        seconds: how long it took.
    """

    requests: int = 0
    keys: int = 0
    kills: int = 0
    executed: int = 0
    executed_twice: list[str] = field(default_factory=list)
    answered_differently: list[str] = field(default_factory=list)
    undecided_again: list[str] = field(default_factory=list)
    never_executed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    unknown: int = 0
    in_progress: int = 0
    lost: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        broken = (self.executed_twice, self.answered_differently, self.undecided_again)
        return not any((*broken, self.never_executed, self.unanswered))


class _Asking:
    """Clients, and what they were told."""

    def __init__(self, served: list[GatewayChild], chance: random.Random) -> None:
        self._served = served
        self._chance = chance
        self._delays: dict[str, float] = {}
        self.answers: dict[str, set[Answer]] = defaultdict(set)
        self.outcome = Outcome()

    async def ask(self, key: str) -> bool:
        """Asks until there is an answer; whether it is the last word."""
        answered_before = bool(self.answers[key])
        while True:
            gateway = self._chance.choice(self._served)
            by = self._by_http if self._chance.random() < 0.5 else self._by_grpc
            answer = await by(gateway, key)
            if answer is not None and answer[0] not in _NOT_YET:
                break
            self.outcome.lost += 1
            await asyncio.sleep(0.1)
        self.outcome.requests += 1
        if answer[1].startswith(_PENDING):
            self.outcome.in_progress += 1
            if answered_before:
                self.outcome.undecided_again.append(key)
            return False
        self.answers[key].add(answer)
        return True

    async def reached(self, requests: int) -> None:
        """Returns when so many were answered."""
        await wait_until(lambda: self.outcome.requests >= requests, timedelta(minutes=10))

    async def last_word(self, key: str) -> None:
        """Returns when a key is no longer undecided."""
        await wait_until(lambda: self.ask(key), _UNDECIDED)

    def _request(self, key: str) -> echo_pb2.SayOnceRequest:
        delay = self._delays.setdefault(key, self._chance.choice((0.0, 0.02, 0.1, 0.3)))
        request = echo_pb2.SayOnceRequest(say=echo_pb2.SayRequest(text=key))
        request.say.delay.FromTimedelta(timedelta(seconds=delay))
        return request

    async def _by_http(self, gateway: GatewayChild, key: str) -> Answer | None:
        say = self._request(key).say
        body = {"say": {"text": key, "delay": say.delay.ToJsonString()}}
        headers = {"idempotency-key": key, "connect-timeout-ms": f"{_SECONDS * 1000:.0f}"}
        try:
            told = await gateway.http.post(_METHOD, json=body, headers=headers)
        except httpx.HTTPError:
            return None
        found = told.json()
        if told.status_code == 200:
            return "OK", found["said"]["text"]
        if "code" not in found:  # it does not know the method yet
            return "NOT_FOUND", ""
        reasons = (one.get("debug", {}).get("reason") for one in found.get("details", ()))
        reason = next(filter(None, reasons), "")
        return found["code"].upper(), f"{reason} {found.get('message', '')}"

    async def _by_grpc(self, gateway: GatewayChild, key: str) -> Answer | None:
        call = gateway.channel.unary_unary(
            _METHOD,
            request_serializer=echo_pb2.SayOnceRequest.SerializeToString,
            response_deserializer=echo_pb2.SayOnceResponse.FromString,
        )
        metadata = (("idempotency-key", key),)
        try:
            told = await call(self._request(key), timeout=_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as failed:
            error = rpc.error_from_call(failed)
            if failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED and not error.reason:
                return None  # by the client's own clock
            return failed.code().name, f"{error.reason} {error.message}"
        return "OK", told.said.text


async def play(
    folder: Path,
    servers: embedded.Endpoints,
    *,
    requests: int = 10_000,
    keys: int = 200,
    kills: int = 5,
    count: int = 2,
    seed: int = 0,
    settled: bool = True,
    say: Say = lambda _: None,
) -> Outcome:
    """One run.

    Args:
        folder: for logs.
        servers: with an empty database.
        requests: to be answered.
        keys: that they have.
        kills: of gateways.
        count: of gateways.
        seed: of what is asked when.
        settled: whether to wait for what was under way as a gateway died.
        say: told how it goes.
    """
    chance = random.Random(seed)
    agent = Counting()
    began = time.monotonic()
    database = {"database_url": servers.database_url}
    async with (
        Registry(address="127.0.0.1:0", cold_start=timedelta(0), **database) as registry,
        Host(registry=registry.address) as host,
    ):
        host.add(agent)
        await host.start()
        settings = {
            "WEFT_REGISTRY": registry.address,
            "WEFT_DATABASE_URL": servers.database_url,
            "WEFT_GATEWAY_AUTH": "off",
        }
        async with gateways(folder, count, settings, served="/v1/echo/ready") as made:
            asking = _Asking(list(made), chance)
            say(f"{count} gateways serve")
            await _busy(asking, agent, made, _order(keys, requests, chance), kills, say)
            names = [f"key-{number}" for number in range(keys)]
            if settled:
                say("waiting for what was under way as a gateway died")
                await asyncio.gather(*(asking.last_word(name) for name in names))
                for name in names:  # and once more, when all is over
                    await asking.ask(name)
    outcome = asking.outcome
    outcome.keys = keys
    outcome.seconds = round(time.monotonic() - began, 1)
    _judge(outcome, asking.answers, agent.done, names, settled=settled)
    return outcome


def _order(keys: int, requests: int, chance: random.Random) -> list[str]:
    """Keys in the order in which they are asked with: each comes new while others are in use."""
    each = requests / keys
    numbered = [int(number / each) for number in range(requests)]
    at = [(number * each + chance.random() * each * _MIXED, number) for number in numbered]
    return [f"key-{number}" for _, number in sorted(at)]


async def _busy(
    asking: _Asking,
    agent: Counting,
    made: Any,
    order: list[str],
    kills: int,
    say: Say,
) -> None:
    waiting = iter(order)

    async def client() -> None:
        for key in waiting:
            await asking.ask(key)

    async def nemesis() -> None:
        for number in range(kills):
            await asking.reached(len(order) * (number + 1) // (kills + 1))
            with contextlib.suppress(TimeoutError):  # late in the run all keys may be answered
                await wait_until(lambda: agent.running, timedelta(seconds=5))
            victim = made[number % len(made)].process
            victim.kill()
            victim.start()
            asking.outcome.kills += 1
            say(f"{asking.outcome.requests} requests answered, {victim.name} killed")

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(client())
        group.create_task(nemesis())


def _judge(
    outcome: Outcome,
    answers: dict[str, set[Answer]],
    done: Counter[str],
    names: list[str],
    *,
    settled: bool,
) -> None:
    outcome.executed = sum(done.values())
    for name in names:
        told = answers[name]
        if done[name] > 1:
            outcome.executed_twice.append(name)
        if len(told) > 1:
            outcome.answered_differently.append(f"{name}: {sorted(told)}")
        if not told and settled:
            outcome.unanswered.append(name)
        unknown = any(text.startswith(_UNKNOWN) for _, text in told)
        outcome.unknown += unknown
        if told and not unknown and not done[name]:
            outcome.never_executed.append(f"{name}: {sorted(told)}")


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr)  # noqa: T201 whoever runs it wants to know


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the outcome as JSON, on stdout")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace, folder: Path) -> Outcome:
    try:
        async with embedded.launch(folder / "data") as servers:
            return await play(
                folder,
                servers,
                requests=arguments.requests,
                keys=arguments.keys,
                kills=arguments.kills,
                count=arguments.gateways,
                seed=arguments.seed,
                say=_say,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    given = _arguments()
    own = Path(tempfile.mkdtemp(prefix="weft-faults-", dir="/tmp"))
    own.chmod(0o711)  # PostgreSQL may run as somebody else
    outcome = asyncio.run(_main(given, own))
    shown = asdict(outcome)
    print(  # noqa: T201 what it is run for
        json.dumps(shown)
        if given.json
        else "\n".join(f"{name:22}{value}" for name, value in shown.items())
    )
    sys.exit(0 if outcome.ok else 1)
