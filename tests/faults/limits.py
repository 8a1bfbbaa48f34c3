"""One limit across gateways: `python tests/faults/limits.py`.

Gateways in processes of their own share a limit in Redis; clients ask for more than it lets in, at all of them. What is
let in is counted by second and on the whole. Then Redis is killed with -9: each gateway keeps the limit by itself; and
when Redis is back, they share it again. Exits with 1 when the limit let in more or less than it should.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.broker.servers import Server, find_program
from tests.faults.gateways import GatewayChild, gateways

from weft import embedded
from weft.agents import Host
from weft.agents.echo import Echo
from weft.registry import Registry
from weft.rpc.testing import wait_until

_METHOD = "/weft.echo.v1.EchoService/Say"
_REQUEST = (
    f"POST {_METHOD} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
).encode()
_TOLERANCE = 0.05
_AT_ONCE = 16  # clients of a gateway
Say = Callable[[str], None]


@dataclass(kw_only=True)
class Phase:
    """Some seconds of asking.

    Attributes:
        name: what happened.
        seconds: how long it took.
        asked: requests.
        admitted: those that were let in.
        by_gateway: the same, of each.
        by_second: let in in each whole second.
        per_second: let in by the second.
        expected: what should have been.
    """

    name: str
    seconds: float
    asked: int
    admitted: int
    by_gateway: list[int]
    by_second: list[int]
    per_second: float
    expected: float

    @property
    def ok(self) -> bool:
        """Whether it was as it should be, within 5 %."""
        return abs(self.per_second - self.expected) <= self.expected * _TOLERANCE


@dataclass(kw_only=True)
class Outcome:
    """What came of a run: its phases, and answers that were neither let in nor refused by the limit."""

    phases: list[Phase] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every phase was as it should be."""
        return not self.odd and all(phase.ok for phase in self.phases)


class _Connection:
    """HTTP as cheap as it comes, so that the load is no load for the machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        host, _, port = url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def ask(self) -> tuple[int, bytes]:
        """The status of one call, and the body of its answer."""
        self._writer.write(_REQUEST)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await self._reader.readexactly(int(length))
        return int(head.split(b" ", 2)[1]), body


class _Load:
    """Clients that ask for more than is let in.

    Args:
        served: by these gateways.
        rate: requests a second, at all of them together.
    """

    def __init__(self, served: Sequence[GatewayChild], rate: float) -> None:
        self._served = served
        self._rate = rate
        self.asked = 0
        self.admitted: list[tuple[float, int]] = []
        self.odd: list[str] = []

    async def run(self) -> None:
        """Asks for ever."""
        pause = _AT_ONCE * len(self._served) / self._rate
        async with asyncio.TaskGroup() as group:
            for number, gateway in enumerate(self._served):
                for client in range(_AT_ONCE):
                    group.create_task(
                        self._client(number, gateway, pause, pause * client / _AT_ONCE)
                    )

    async def _client(self, number: int, gateway: GatewayChild, pause: float, first: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + first
        async with _Connection.open(gateway.url) as connection:
            while True:
                await asyncio.sleep(max(0.0, due - loop.time()))
                due = max(due + pause, loop.time())
                self.asked += 1
                try:
                    status, body = await connection.ask()
                except (OSError, EOFError, ValueError) as failed:
                    self.odd.append(repr(failed))
                    return
                if status == 200:
                    self.admitted.append((time.monotonic(), number))
                elif status != 429:
                    self.odd.append(f"status {status}: {body.decode()}")

    async def phase(self, name: str, seconds: float, expected: float) -> Phase:
        """Counts for so long."""
        asked, before = self.asked, len(self.admitted)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        came = self.admitted[before:]
        by_second = [0] * int(took)
        for at, _ in came:
            if 0 <= at - began < len(by_second):
                by_second[int(at - began)] += 1
        return Phase(
            name=name,
            seconds=round(took, 2),
            asked=self.asked - asked,
            admitted=len(came),
            by_gateway=[sum(n == each for _, n in came) for each in range(len(self._served))],
            by_second=by_second,
            per_second=round(len(came) / took, 1),
            expected=expected,
        )


async def play(
    folder: Path,
    database_url: str,
    redis: Server,
    *,
    limit: int = 100,
    count: int = 2,
    seconds: float = 10.0,
    burst: int = 20,
    load: float = 600.0,
    kill: bool = True,
    back: bool = True,
    say: Say = lambda _: None,
) -> Outcome:
    """One run.

    Args:
        folder: for logs.
        database_url: an empty database.
        redis: runs.
        limit: calls a second.
        count: of gateways.
        seconds: of each phase.
        burst: what may come at once. On a busy machine nothing comes for a while, and what was not used meanwhile is lost
            but for this.
        load: requests a second at all gateways together.
        kill: whether Redis is killed.
        back: whether it comes back.
        say: told how it goes.
    """
    outcome = Outcome()

    async def counted(load: _Load, name: str, expected: float) -> None:
        phase = await load.phase(name, seconds, expected)
        outcome.phases.append(phase)
        say(f"{name}: {phase.per_second} a second of {expected:.0f}, {phase.by_second}")

    async with (
        Registry(
            address="127.0.0.1:0", cold_start=timedelta(0), database_url=database_url
        ) as registry,
        Host(registry=registry.address) as host,
    ):
        host.add(Echo("limited"))
        await host.start()
        settings = {
            "WEFT_REGISTRY": registry.address,
            "WEFT_DATABASE_URL": database_url,
            "WEFT_REDIS_URL": redis.url,
            "WEFT_GATEWAY_AUTH": "off",
            "WEFT_GATEWAY_LIMITS": f"per=all rate={limit}/s burst={burst} methods={_METHOD[1:]}",
        }
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(
                gateways(folder, count, settings, served="/agents/echo")
            )
            for gateway in made:
                await _routed(gateway)
            asking = await stack.enter_async_context(_asking(_Load(made, load)))
            say(f"{count} gateways serve")
            await asyncio.sleep(1)  # the first burst
            await counted(asking, "shared", limit)
            if kill:
                redis.kill()
                say("Redis killed")
                await asyncio.sleep(1.5)
                await counted(asking, "without Redis", limit * count)
            if kill and back:
                await redis.start()
                say("Redis started")
                await asyncio.sleep(2.5)  # it is looked for again after a second
                await counted(asking, "shared again", limit)
            outcome.odd = asking.odd[:20]
    return outcome


async def _routed(gateway: GatewayChild) -> None:
    async def served() -> bool:
        return (await gateway.http.post(_METHOD, json={})).status_code in {200, 429}

    await wait_until(served, timedelta(seconds=30))


@contextlib.asynccontextmanager
async def _asking(load: _Load) -> AsyncIterator[_Load]:
    running = asyncio.create_task(load.run())
    try:
        yield load
    finally:
        running.cancel()
        await asyncio.wait({running})


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr)  # noqa: T201 whoever runs it wants to know


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=100, help="calls a second")
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    parser.add_argument("--burst", type=int, default=20, help="calls that may come at once")
    parser.add_argument("--load", type=float, default=600.0, help="requests a second, in all")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON, on stdout")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace, folder: Path) -> Outcome:
    redis = Server(await find_program(), folder / "redis")
    try:
        await redis.start()
        async with embedded.launch(folder / "data", redis_url=redis.url) as servers:
            return await play(
                folder,
                servers.database_url,
                redis,
                limit=arguments.limit,
                count=arguments.gateways,
                seconds=arguments.seconds,
                burst=arguments.burst,
                load=arguments.load,
                say=_say,
            )
    finally:
        redis.kill()


if __name__ == "__main__":
    given = _arguments()
    own = Path(tempfile.mkdtemp(prefix="weft-faults-", dir="/tmp"))
    own.chmod(0o711)  # PostgreSQL may run as somebody else
    try:
        outcome = asyncio.run(_main(given, own))
    finally:
        shutil.rmtree(own, ignore_errors=True)
    if given.json:
        print(json.dumps(asdict(outcome)))  # noqa: T201 what it is run for
    sys.exit(0 if outcome.ok else 1)
