"""Everything that runs in a round: Redis, the proxy, brokers, producers and consumers, each a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from tests.broker import servers
from tests.faults import consumer, producer, workload
from tests.faults.checker import Dead, Final, QueueState
from tests.faults.connecting import channel
from tests.faults.history import Event, read
from tests.faults.host import Disk, Host, small_disk
from tests.faults.processes import Child, python
from tests.faults.proxy import Remote
from tests.ports import free_port

from weft.rpc.testing import wait_until
from weft.v1 import broker_pb2, broker_pb2_grpc

_STARTING = timedelta(seconds=20)
_DISK = 1024  # MB
_KILLED = -signal.SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a round is made of. `beat`: of the brokers, in seconds. `plant`: a bug that they are asked to have."""

    seed: int = 0
    rate: float = 600.0
    brokers: int = 2
    producers: int = 2
    consumers: int = 2
    askers: int = 2
    beat: float = 0.5
    replica: bool = False
    sdk: bool = True
    plant: str = ""
    database_url: str = ""
    only: tuple[str, ...] = ()
    # Of deliveries, in percent: given back, forgotten, held for a while.
    nack: float = 3.0
    forget: float = 0.3
    hold: float = 5.0

    @property
    def queues(self) -> tuple[str, ...]:
        return self.only or workload.QUEUES


class RedisServer:
    """Redis, with a clock and a disk that can be played with; `port` where it has a replica or is one."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        host: Host | None,
        disk: Disk | None,
        *,
        name: str = "redis",
        port: int = 0,
    ) -> None:
        self.folder = (disk.folder if disk is not None else folder) / f"{name}-data"
        self.folder.mkdir(exist_ok=True)
        self.socket = folder / name
        self.port = port
        self.host, self.disk = host, disk
        self._program = program
        self._settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "auto-aof-rewrite-min-size": "16mb",
            "repl-diskless-sync-delay": "0",
        }
        environment = host.environment if host is not None else None
        self.child = Child([program], folder / f"{name}.log", environment)
        self.follow(None)

    def follow(self, primary: RedisServer | None) -> None:
        """From its next start on it is a replica of another one; None: it is none."""
        settings = dict(self._settings)
        if primary is not None:
            settings["replicaof"] = f"127.0.0.1 {primary.port}"
        arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
        self.child.command = [str(self._program), *arguments]

    @property
    def target(self) -> str:
        """Where a link leads to."""
        return f"127.0.0.1:{self.port}" if self.port else str(self.socket)

    async def has_replica(self) -> bool:
        """Whether a replica is in step."""
        return b"state=online" in await self.command("INFO", "replication")

    async def command(self, *words: str) -> bytes:
        """What it says to a command, in its protocol, up to the first pause; empty: nothing within a second."""
        said = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write((" ".join(words) + "\r\n").encode())
                    said = await reader.read(1 << 16)
                finally:
                    writer.close()
        return said

    async def answers(self) -> bool:
        return (await self.command("PING")).startswith(b"+PONG")

    async def figure(self, section: str, name: str) -> int:
        """A number of INFO; -1: it does not say."""
        for line in (await self.command("INFO", section)).decode(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key == name and value.isdigit():
                return int(value)
        return -1

    def fill_disk(self) -> None:
        if self.disk is not None:
            self.disk.fill()
        elif self.host is not None:
            self.host.fill(full=True)

    def free_disk(self) -> None:
        if self.disk is not None:
            self.disk.free()
        elif self.host is not None:
            self.host.fill(full=False)


class Arena:
    """All processes of a round. Those that nobody killed and that are gone anyway are in `crashes`."""

    def __init__(self, folder: Path, setup: Setup) -> None:
        self.folder = folder
        self.setup = setup
        self.histories = folder / "histories"
        self.histories.mkdir()
        self.remote = Remote(folder / "proxy")
        self.links: list[str] = []
        self.brokers: list[Child] = []
        self.producers: list[Child] = []
        self.consumers: list[Child] = []
        self.busy: set[str] = set()
        self.crashes: list[str] = []
        self.redis: RedisServer  # the primary, where there are two
        self.replica: RedisServer | None = None
        self._addresses: list[str] = []
        self._proxied: dict[str, list[str]] = {"pub": [], "con": []}
        self._proxy = Child(
            python("tests.faults.proxy", str(folder / "proxy")), folder / "proxy.log"
        )

    @property
    def children(self) -> dict[str, Child]:
        named = {"redis": self.redis.child, "proxy": self._proxy}
        if self.replica is not None:
            named["replica"] = self.replica.child
        for kind in ("broker", "producer", "consumer"):
            for number, child in enumerate(getattr(self, f"{kind}s"), 1):
                named[f"{kind}-{number}"] = child
        return named

    async def start(self, program: Path, host: Host | None, disk: Disk | None) -> None:
        """Starts all, one after the other, and makes the queues."""
        self._proxy.start()
        await wait_until((self.folder / "proxy").exists, _STARTING)
        await self._start_redis(program, host, disk)
        for number in range(1, self.setup.brokers + 1):
            await self._start_broker(number)
        await self._make_queues()
        for number in range(1, self.setup.consumers + 1):
            self.consumers.append(self._consumer(number))
        for number in range(1, self.setup.producers + 1):
            self.producers.append(self._producer(number))
        for child in (*self.consumers, *self.producers):
            child.start()

    async def _start_redis(self, program: Path, host: Host | None, disk: Disk | None) -> None:
        def server(name: str) -> RedisServer:
            port = free_port() if self.setup.replica else 0
            return RedisServer(program, self.folder, host, disk, name=name, port=port)

        self.redis = server("redis")
        self.redis.child.start()
        await wait_until(self.redis.answers, _STARTING)
        if self.setup.replica:
            self.replica = server("other")
            self.replica.follow(self.redis)
            self.replica.child.start()
            await wait_until(self.redis.has_replica, _STARTING)

    async def fail_over(self) -> None:
        """The primary dies, its replica takes its place; some time later the dead one is the new one's replica."""
        old, new = self.redis, self.replica
        assert new is not None
        old.child.kill()
        await new.command("REPLICAOF", "NO", "ONE")
        new.follow(None)
        old.follow(new)
        self.redis, self.replica = new, old

    async def _start_broker(self, number: int) -> None:
        stores = [self.redis] if self.replica is None else [self.redis, self.replica]
        ports = [
            await self._link(f"redis-{number}{letter}", store.target, "resp")
            for letter, store in zip("ab", stores, strict=False)
        ]
        address = f"127.0.0.1:{free_port()}"
        self._addresses.append(address)
        for kind, addresses in self._proxied.items():
            found = await self._link(f"{kind}-{number}", address, "http2")
            addresses.append(f"127.0.0.1:{found}")
        settings: dict[str, Any] = {
            "redis_url": "redis://" + ",".join(f"127.0.0.1:{port}" for port in ports),
            "address": address,
            "beat": self.setup.beat,
        }
        if self.setup.database_url:
            settings["database_url"] = self.setup.database_url
        if self.setup.plant:
            settings["plant"] = self.setup.plant
        child = self._role("broker", f"broker-{number}", settings)
        self.brokers.append(child)
        child.start()

    async def _link(self, name: str, target: str, protocol: str) -> int:
        self.links.append(name)
        return await self.remote.open(name, target, protocol)

    def _role(self, role: str, name: str, settings: dict[str, Any]) -> Child:
        command = python("tests.faults.roles", role, json.dumps(settings))
        return Child(command, self.folder / f"{name}.log")

    def _kind(self, number: int) -> str:
        """Every second client is Weft's own; the others speak plain gRPC."""
        return "" if number % 2 or not self.setup.sdk else "sdk-"

    def _producer(self, number: int) -> Child:
        settings = producer.Settings(
            name=f"p{number}",
            folder=str(self.histories),
            addresses=self._proxied["pub"],
            seed=self.setup.seed,
            rate=self.setup.rate / self.setup.producers,
            askers=self.setup.askers if workload.ASK in self.setup.queues else 0,
            only=list(self.setup.only),
        )
        role = self._kind(number) + "producer"
        return self._role(role, f"producer-{number}", asdict(settings))

    def _consumer(self, number: int) -> Child:
        settings = consumer.Settings(
            name=f"c{number}",
            folder=str(self.histories),
            addresses=self._proxied["con"],
            queues=list(self.setup.queues),
            seed=self.setup.seed,
            nack=self.setup.nack,
            forget=self.setup.forget,
            hold=self.setup.hold,
        )
        role = self._kind(number) + "consumer"
        return self._role(role, f"consumer-{number}", asdict(settings))

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        """A stub of some broker, past the proxy."""
        target = "ipv4:" + ",".join(self._addresses)
        async with channel(target) as found:
            yield broker_pb2_grpc.BrokerServiceStub(found)

    async def _make_queues(self) -> None:
        async with self._admin() as stub:
            for queue, policy in workload.policies(replicated=self.setup.replica).items():
                if queue not in self.setup.queues:
                    continue
                request = broker_pb2.SetQueueRequest(queue=queue, policy=policy)
                await stub.SetQueue(request, timeout=20, wait_for_ready=True)
            for subscription in workload.subscriptions():
                if subscription.queue not in self.setup.queues:
                    continue
                wanted = broker_pb2.SubscribeRequest(subscription=subscription)
                await stub.Subscribe(wanted, timeout=20, wait_for_ready=True)

    def restart_the_fallen(self) -> None:
        """Notes and restarts what nobody killed."""
        for name, child in self.children.items():
            if name not in self.busy and child.starts and not child.alive:
                said = "\n".join(child.said().splitlines()[-15:])
                self.crashes.append(f"{name} ended by itself ({child.returncode}):\n{said}")
                child.start()

    async def heal(self) -> None:
        """No fault is left."""
        self.redis.free_disk()
        if self.redis.host is not None:
            self.redis.host.step_clock(0)
        for link in self.links:
            await self.remote.refuse(link, refuse=False)
            await self.remote.set(link)
        for child in self.children.values():
            child.go_on()
            if not child.alive:
                child.start()
        await wait_until(self.redis.answers, _STARTING)

    async def finish(self, patience: float = 30.0) -> tuple[list[Event], Final]:
        """Producers say their last, consumers take all there is; what they saw and what is left."""
        for child in (*self.producers, *self.consumers):
            await wait_until(child.ready, _STARTING)
        for child in self.producers:
            child.ask_to_end()
        await asyncio.gather(*(self._ended(child, patience) for child in self.producers))
        final = await self._drained(patience)
        for child in self.consumers:
            child.ask_to_end()
        await asyncio.gather(*(self._ended(child, 8) for child in self.consumers))
        return read(self.histories.glob("*.log")), final

    async def _ended(self, child: Child, patience: float) -> None:
        if not await child.ended(patience):
            self.crashes.append(f"{child.name} did not end:\n{child.said()[-1_000:]}")
            child.kill()
        elif child.returncode != 0:
            self.crashes.append(
                f"{child.name} ended with {child.returncode}:\n{child.said()[-2_000:]}"
            )

    async def _drained(self, patience: float) -> Final:
        """How it is once all queues are empty, or nothing has moved for long."""
        loop = asyncio.get_running_loop()
        moved, kept = loop.time(), -1
        while True:
            async with self._admin() as stub:
                try:
                    final = await final_state(stub)
                except grpc.aio.AioRpcError as error:
                    if loop.time() - moved > patience:
                        self.crashes.append(f"no broker answers: {error.code()} {error.details()}")
                        return Final()
                    await asyncio.sleep(0.3)
                    continue
            depth = sum(state.depth + state.pending + state.blocked for state in final.queues)
            if depth == 0 or loop.time() - moved > patience:
                return final
            if depth != kept:
                moved, kept = loop.time(), depth
            await asyncio.sleep(0.1)

    def logs(self) -> str:
        """What the processes have said."""
        return "\n".join(
            f"{path.name}:\n{path.read_text()[-5_000:]}" for path in self.folder.glob("*.log")
        )

    async def stop(self) -> None:
        """Ends all, whatever state it is in."""
        for child in self.children.values() if hasattr(self, "redis") else [self._proxy]:
            child.kill()
        await self.remote.close()


async def final_state(stub: Any) -> Final:
    """What a broker says of all queues and dead letters."""
    listed = await stub.ListQueues(broker_pb2.ListQueuesRequest(page_size=1_000), timeout=5)
    queues = [
        QueueState(
            queue=status.queue,
            depth=status.depth,
            pending=status.pending,
            blocked=status.blocked,
            delayed=status.delayed,
            data_loss=status.data_loss,
        )
        for status in listed.queues
    ]
    dead = [
        Dead(
            queue=letter.queue,
            id=letter.message.id,
            reason=letter.reason,
            attempts=letter.attempts,
            error=letter.error,
        )
        for status in listed.queues
        if status.dead
        for letter in [one async for one in _dead_letters(stub, status.queue)]
    ]
    return Final(queues=queues, dead=dead)


async def _dead_letters(stub: Any, queue: str) -> AsyncIterator[broker_pb2.DeadLetter]:
    request = broker_pb2.ListDeadLettersRequest(queue=queue, page_size=1_000)
    while True:
        page = await stub.ListDeadLetters(request, timeout=10)
        for letter in page.dead_letters:
            yield letter
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


@contextlib.contextmanager
def _machine(folder: Path) -> Iterator[tuple[Host | None, Disk | None]]:
    """The host of Redis, as far as this machine allows."""
    try:
        host: Host | None = Host(folder)
    except RuntimeError:
        host = None
    try:
        with small_disk(folder / "disk", _DISK) as disk:
            yield host, disk
    finally:
        if host is not None:
            host.close()


@contextlib.asynccontextmanager
async def arena(folder: Path, setup: Setup) -> AsyncIterator[Arena]:
    """An arena at work, and gone in the end, whatever happens."""
    found = Arena(folder, setup)
    with _machine(folder) as (host, disk):
        try:
            try:
                await found.start(await servers.find_program(), host, disk)
            except Exception as error:
                raise RuntimeError(f"the arena does not start:\n{found.logs()}") from error
            yield found
        finally:
            await found.stop()
