"""A process that stands between two others and cuts, refuses, delays, stalls, trickles and damages what they say.

    python -m tests.faults.proxy CONTROL_SOCKET

On its control socket it takes a line of JSON per command and answers with one:

    {"do": "open", "link": "a", "listen": PORT, "target": "127.0.0.1:1" or "/path", "protocol": "http2|resp|opaque"}
    {"do": "set", "link": "a", "way": "up|down|both", "delay": s, "stall": bool, "trickle": bytes per 10 ms,
     "damage": elements, "garble": share of bytes}     up: from whoever connected; what is not given is 0
    {"do": "refuse", "link": "a", "refuse": true}      new connections are reset
    {"do": "cut", "link": "a"}                         resets all connections; answers how many there were
    {"do": "count", "link": "a"}                       connections and bytes
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop
from tests.faults.framing import framing

_MOST_WAITING = 1 << 20  # bytes a direction keeps before its sender has to wait
_TICK = 0.01
_RESET = struct.pack("ii", 1, 0)
_WAYS = {"up": ("up",), "down": ("down",), "both": ("up", "down")}


@dataclass(slots=True)
class Trouble:
    """What befalls one direction of a link. See the module."""

    delay: float = 0.0
    stall: bool = False
    trickle: int = 0
    damage: int = 0
    garble: float = 0.0

    @property
    def slows(self) -> bool:
        return bool(self.delay or self.stall or self.trickle)


@dataclass(slots=True)
class Link:
    """A place to connect to, and what it leads to."""

    name: str
    target: str
    protocol: str
    up: Trouble = field(default_factory=Trouble)
    down: Trouble = field(default_factory=Trouble)
    refuse: bool = False
    joints: set[Joint] = field(default_factory=set)
    connections: int = 0
    bytes: int = 0


class Pipe:
    """One direction of one connection."""

    def __init__(self, link: Link, way: str) -> None:
        self.link = link
        self._way = way
        self._loop = asyncio.get_running_loop()
        self._framing = framing(link.protocol, client=way == "up")
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None

    @property
    def trouble(self) -> Trouble:
        return cast("Trouble", getattr(self.link, self._way))

    def feed(self, data: bytes) -> None:
        trouble = self.trouble
        self.link.bytes += len(data)
        data = self._damaged(data, trouble)
        if self.sink is not None and not self._waiting and not trouble.slows:
            if not self.sink.is_closing():
                self.sink.write(data)
            return
        self._waiting.append((self._loop.time() + trouble.delay, data))
        self._size += len(data)
        if self._size > _MOST_WAITING and self.source is not None:
            self.source.pause_reading()
        self.pump()

    def _damaged(self, data: bytes, trouble: Trouble) -> bytes:
        starts = self._framing.feed(data)
        if trouble.damage and starts:
            trouble.damage -= 1
            start, wrong = random.choice(starts), self._framing.damage
            return data[:start] + wrong + data[start + len(wrong) :]
        if trouble.garble:
            return bytes(
                byte ^ random.randrange(1, 256) if random.random() < trouble.garble else byte
                for byte in data
            )
        return data

    def end(self) -> None:
        """Its source said its last."""
        self._ended = True
        self.pump()

    def pump(self) -> None:
        """Passes on what may be."""
        trouble = self.trouble
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.sink is None or trouble.stall:
            return
        if self.sink.is_closing():
            self._waiting.clear()
            return
        now = self._loop.time()
        while self._waiting:
            due, data = self._waiting[0]
            if due > now and trouble.delay:
                self._timer = self._loop.call_at(due, self.pump)
                return
            part = data[: trouble.trickle] if trouble.trickle else data
            self.sink.write(part)
            self._size -= len(part)
            if len(part) < len(data):
                self._waiting[0] = due, data[len(part) :]
            else:
                self._waiting.popleft()
            if trouble.trickle and self._waiting:
                self._timer = self._loop.call_later(_TICK, self.pump)
                return
        if self._ended:
            self.sink.close()
        elif self.source is not None and not self.source.is_closing():
            self.source.resume_reading()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Joint:
    """One connection through a link: from whoever connected, and to the target."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.up, self.down = Pipe(link, "up"), Pipe(link, "down")
        self._transports: list[asyncio.Transport] = []
        link.joints.add(self)
        link.connections += 1

    def attach(self, transport: asyncio.Transport, *, client: bool) -> None:
        self._transports.append(transport)
        if client:
            self.up.source = self.down.sink = transport
        else:
            self.down.source = self.up.sink = transport
            self.up.pump()

    def reset(self) -> None:
        """Ends it as a lost peer would: what is on its way is gone."""
        self.link.joints.discard(self)
        self.up.stop()
        self.down.stop()
        for transport in self._transports:
            if transport.is_closing():
                continue
            found = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # a unix socket has no reset
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()

    def lost(self, *, client: bool) -> None:
        """One side is gone; the other hears of it behind what is still on its way."""
        (self.up if client else self.down).end()
        if all(transport.is_closing() for transport in self._transports):
            self.link.joints.discard(self)


class _End(asyncio.Protocol):
    def __init__(self, joint: Joint, *, client: bool) -> None:
        self._joint = joint
        self._client = client
        self._out = joint.up if client else joint.down  # what this end says goes there
        self._in = joint.down if client else joint.up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._joint.attach(cast("asyncio.Transport", transport), client=self._client)

    def data_received(self, data: bytes) -> None:
        self._out.feed(bytes(data))

    def pause_writing(self) -> None:
        if self._in.source is not None:
            self._in.source.pause_reading()

    def resume_writing(self) -> None:
        if self._in.source is not None and not self._in.source.is_closing():
            self._in.source.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._joint.lost(client=self._client)


class _Accepted(_End):
    """The end that whoever connected has: it makes the other one."""

    def __init__(self, link: Link) -> None:
        super().__init__(Joint(link), client=True)
        self._link = link
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._link.refuse:
            self._joint.reset()
        else:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop, target = asyncio.get_running_loop(), self._link.target
        other = _End(self._joint, client=False)
        try:
            if target.startswith("/"):
                await loop.create_unix_connection(lambda: other, target)
            else:
                host, _, port = target.rpartition(":")
                await loop.create_connection(lambda: other, host, int(port))
        except OSError:
            self._joint.reset()


class Proxy:
    """The links and what is done to them."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []

    async def serve(self, control: str) -> None:
        """Takes commands until it is killed."""
        server = await asyncio.start_unix_server(self._converse, control)
        print("ready", flush=True)  # noqa: T201 whoever started it waits for this
        await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                answer = await self._obey(json.loads(line))
            except Exception as error:  # noqa: BLE001 whoever asked has to know
                answer = {"error": repr(error)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _obey(self, command: dict[str, Any]) -> dict[str, Any]:
        commands: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "open": self._open,
            "set": self._set,
            "refuse": self._refuse,
            "cut": self._cut,
            "count": self._count,
        }
        do = commands[command.pop("do")]
        return await do(**command)

    async def _open(self, link: str, listen: int, target: str, protocol: str) -> dict[str, Any]:
        found = self._links[link] = Link(link, target, protocol)
        server = await asyncio.get_running_loop().create_server(
            lambda: _Accepted(found), "127.0.0.1", listen
        )
        self._servers.append(server)
        return {"port": server.sockets[0].getsockname()[1]}

    async def _set(self, link: str, way: str = "both", **trouble: Any) -> dict[str, Any]:
        found = self._links[link]
        for name in _WAYS[way]:
            setattr(found, name, Trouble(**trouble))
        for joint in list(found.joints):
            joint.up.pump()
            joint.down.pump()
        return {}

    async def _refuse(self, link: str, *, refuse: bool) -> dict[str, Any]:
        self._links[link].refuse = refuse
        return {}

    async def _cut(self, link: str) -> dict[str, Any]:
        joints = list(self._links[link].joints)
        for joint in joints:
            joint.reset()
        return {"cut": len(joints)}

    async def _count(self, link: str) -> dict[str, Any]:
        found = self._links[link]
        return {
            "connections": found.connections,
            "open": len(found.joints),
            "bytes": found.bytes,
            "damage": found.up.damage + found.down.damage,
        }


class Remote:
    """The proxy, from the process that started it."""

    def __init__(self, control: Path) -> None:
        self._control = str(control)
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def _ask(self, **command: Any) -> dict[str, Any]:
        async with self._lock:
            if self._streams is None:
                self._streams = await asyncio.open_unix_connection(self._control)
            reader, writer = self._streams
            writer.write(json.dumps(command).encode() + b"\n")
            answer = cast("dict[str, Any]", json.loads(await reader.readline()))
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer

    async def open(self, link: str, target: str, protocol: str = "opaque", listen: int = 0) -> int:
        """Makes a link; returns its port."""
        answer = await self._ask(
            do="open", link=link, listen=listen, target=target, protocol=protocol
        )
        return int(answer["port"])

    async def set(self, link: str, way: str = "both", **trouble: float) -> None:
        """Sets what befalls it from now on: see the module. Nothing given: it is well again."""
        await self._ask(do="set", link=link, way=way, **trouble)

    async def refuse(self, link: str, *, refuse: bool) -> None:
        await self._ask(do="refuse", link=link, refuse=refuse)

    async def cut(self, link: str) -> int:
        """Resets its connections; returns how many there were."""
        return int((await self._ask(do="cut", link=link))["cut"])

    async def count(self, link: str) -> dict[str, Any]:
        return await self._ask(do="count", link=link)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()


if __name__ == "__main__":
    uvloop.run(Proxy().serve(sys.argv[1]))
