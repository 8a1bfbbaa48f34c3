"""The processes of the capacity benchmark. Each is told what to do by lines of JSON (see parts.py)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import crowds
import grpc
import registry_roles

from weft.agents import Host, Mesh
from weft.agents.messaging import Consumer, Publisher
from weft.broker import Broker
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.rpc import process
from weft.telemetry import Instruments, Telemetry
from weft.v1 import message_pb2

_SAY = "/weft.echo.v1.EchoService/Say"
_IN_FLIGHT = 16
_PUBLISHING = 100  # messages in flight
_DEADLINE = 30.0  # seconds


class Agent:
    """The process of an agent, as an author's."""

    def __init__(self, registry: str, name: str) -> None:
        process.raise_files()
        self._collecting = process.collecting()
        self._host = Host(registry=registry, telemetry=Telemetry(metrics=Instruments(name)))
        self._host.add(crowds.Patient("one"), agent=name, max_concurrency=1_000_000)

    async def start(self) -> Mapping[str, Any]:
        """Serves for ever."""
        await self._host.__aenter__()
        await self._host.start()
        await self._collecting.__aenter__()
        return {"address": self._host.server.address}


class Door:
    """The gateway."""

    def __init__(self, registry: str, database_url: str) -> None:
        process.raise_files()
        self._collecting = process.collecting()
        self._gateway = Gateway(
            registry=registry,
            database_url=database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
            telemetry=Telemetry(metrics=Instruments("gateway")),
        )

    async def start(self) -> Mapping[str, Any]:
        """Serves for ever."""
        await self._gateway.__aenter__()
        await self._gateway.ready()
        await self._collecting.__aenter__()
        http = self._gateway.url.removeprefix("http://")
        return {"http": http, "grpc": self._gateway.grpc_address}


class Post:
    """The broker."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        process.raise_files()
        self._collecting = process.collecting()
        self._broker = Broker(redis_url=redis_url, database_url=database_url, address="127.0.0.1:0")

    async def start(self) -> Mapping[str, Any]:
        """Serves for ever."""
        await self._broker.__aenter__()
        await self._collecting.__aenter__()
        return {"address": self._broker.address}


class Caller:
    """Calls in a closed loop: the agent itself by `xds:///`, by the gateway's gRPC port, or by its REST port."""

    def __init__(self, registry: str, agent: str, grpc_address: str, http: str) -> None:
        self._mesh = Mesh(registry, telemetry=Telemetry(metrics=Instruments("caller")))
        self._agent, self._grpc, self._http = agent, grpc_address, http
        self._ways: dict[str, Callable[[str], Awaitable[str]]] = {}
        self._free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._free = asyncio.Queue()

    async def start(self) -> Mapping[str, Any]:
        """Opens the connections."""
        host, _, port = self._http.rpartition(":")
        for _ in range(_IN_FLIGHT):
            self._free.put_nowait(await asyncio.open_connection(host, int(port)))
        direct = self._mesh.stub(echo_pb2_grpc.EchoServiceStub, self._agent)
        channel = grpc.aio.insecure_channel(self._grpc)
        through = echo_pb2_grpc.EchoServiceStub(channel)

        async def by_mesh(text: str) -> str:
            answer = await direct.Say(echo_pb2.SayRequest(text=text), timeout=_DEADLINE)
            return str(answer.text)

        async def by_gateway(text: str) -> str:
            answer = await through.Say(echo_pb2.SayRequest(text=text), timeout=_DEADLINE)
            return str(answer.text)

        self._ways = {"direct": by_mesh, "grpc": by_gateway, "rest": self._rest}
        return {}

    async def calls(self, way: str, seconds: float, size: int) -> Mapping[str, Any]:
        """Calls for so long with a text of `size` bytes, which must come back; how many there were."""
        call, text = self._ways[way], "x" * size
        until = time.perf_counter() + seconds
        done = 0

        async def loop() -> None:
            nonlocal done
            while time.perf_counter() < until:
                if await call(text) != text:
                    raise AssertionError(f"{way}: another answer")
                done += 1

        async with asyncio.TaskGroup() as running:
            for _ in range(_IN_FLIGHT):
                running.create_task(loop())
        return {"calls": done}

    async def stream(self, count: int, size: int) -> Mapping[str, Any]:
        """Reads a stream of events of so many messages by REST; how many came."""
        reader, writer = await self._free.get()
        body = json.dumps({"count": count, "text": "x" * size}).encode()
        writer.write(
            b"POST /v1/echo:repeat HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
            b"accept: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        got = 0
        while not (line := await reader.readline()).startswith(b"event: end"):
            if not line or line == b"0\r\n":
                break
            got += line.startswith(b"data: ")
        writer.close()
        return {"messages": got}

    async def _rest(self, text: str) -> str:
        reader, writer = await self._free.get()
        body = b'{"text": "%s"}' % text.encode()
        writer.write(
            b"POST /v1/echo:say HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        answer = json.loads(await reader.readexactly(length))
        self._free.put_nowait((reader, writer))
        return str(answer.get("text", answer))


class Senders:
    """Publishes messages of a size, in turn to queues of a prefix."""

    def __init__(self, broker: str) -> None:
        self._publisher = Publisher(broker, sender="capacity")

    async def start(self) -> Mapping[str, Any]:
        """Connects."""
        await self._publisher.__aenter__()
        return {}

    async def publish(self, prefix: str, queues: int, count: int, size: int) -> Mapping[str, Any]:
        """Publishes; returns when all are accepted."""
        room = asyncio.Semaphore(_PUBLISHING)

        async def one(number: int) -> None:
            async with room:
                await self._publisher.publish(
                    message_pb2.Message(
                        recipient=f"{prefix}-{number % queues}",
                        method=_SAY,
                        payload=b"x" * size,
                    )
                )

        async with asyncio.TaskGroup() as running:
            for number in range(count):
                running.create_task(one(number))
        return {}


class Takers:
    """Consumers of queues of a prefix, one each, that acknowledge what they get."""

    def __init__(self, broker: str) -> None:
        process.raise_files()
        self._broker = broker
        self._consumers: list[Consumer] = []
        self._taken = 0
        self._heard = asyncio.Event()

    async def start(self) -> Mapping[str, Any]:
        """Nothing is consumed before `consume`."""
        return {}

    async def declare(self, prefix: str, queues: int) -> Mapping[str, Any]:
        """Makes the queues, of which nobody consumes yet."""
        await self.consume(prefix, queues)
        for consumer in self._consumers:
            await consumer.__aexit__(None, None, None)
        self._consumers.clear()
        return {}

    async def consume(self, prefix: str, queues: int) -> Mapping[str, Any]:
        """Begins to consume; returns when all are connected."""
        for number in range(queues):
            taken: list[Consumer] = []

            def take(
                deliveries: Sequence[message_pb2.MessageDelivery], taken: list[Consumer] = taken
            ) -> None:
                for delivery in deliveries:
                    taken[0].ack(delivery.lease_id)
                self._taken += len(deliveries)
                self._heard.set()

            consumer = Consumer(
                self._broker, f"{prefix}-{number}", on_batch=take, concurrency=_PUBLISHING
            )
            taken.append(consumer)
            await consumer.__aenter__()
            self._consumers.append(consumer)
        await asyncio.gather(*(each.connected.wait() for each in self._consumers))
        return {}

    async def taken(self, count: int) -> Mapping[str, Any]:
        """When so many were taken since the last time."""
        while self._taken < count:
            self._heard.clear()
            await self._heard.wait()
        self._taken = 0
        return {}


class Turner:
    """A process with one instance that goes into and out of service: changes for those who follow."""

    def __init__(self, address: str) -> None:
        self._member = registry_roles.Member(address)

    async def start(self) -> Mapping[str, Any]:
        """Registers."""
        await self._member.register()
        return {"revision": self._member.revision}

    async def turn(self) -> Mapping[str, Any]:
        """One change; the revision of it."""
        return {"revision": await self._member.turn()}


ROLES: Mapping[str, Callable[..., Any]] = {
    **registry_roles.ROLES,
    "agent": Agent,
    "door": Door,
    "post": Post,
    "caller": Caller,
    "senders": Senders,
    "takers": Takers,
    "turner": Turner,
}
