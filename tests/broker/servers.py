"""Redis-protocol servers as processes of their own, which tests kill, stop, promote and move slots between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import redis.asyncio
from redis.exceptions import RedisError
from tests.lifetime import ending_with_parent
from tests.ports import free_port

from weft import embedded
from weft.embedded import _binaries
from weft.rpc.testing import wait_until

PATIENCE = timedelta(seconds=15)


async def find_program() -> Path:
    """The server's program."""
    async for program in _binaries.redis_servers(None):
        return program.path
    raise RuntimeError("no Redis-protocol server is installed")


class Server:
    """One server with a folder of its own. `port` 0: on a unix socket. Settings as in its configuration file."""

    def __init__(
        self, program: Path, folder: Path, *, port: int = 0, **settings: str | int
    ) -> None:
        self.port = port
        self.folder = folder
        self.socket = folder / "s"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, str | int] = {
            "port": port,
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "dir": str(folder),
            "save": "",
            "logfile": str(folder / "log"),
            "appendonly": "yes",
            "appendfsync": "always",
            "repl-diskless-sync-delay": 0,
            **{key.replace("_", "-"): value for key, value in settings.items()},
        }

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.where}" if self.port else f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts it and returns when it answers. Raises RuntimeError with its log when it does not."""
        self.begin()
        try:
            await wait_until(lambda: self.ended() or self.answers(), PATIENCE)
        except TimeoutError as silent:
            raise RuntimeError(f"the server does not answer: {self._log()}") from silent
        if self.ended():
            raise RuntimeError(f"the server did not start: {self._log()}")

    def ended(self) -> bool:
        """Whether it runs no more."""
        return self._process is None or self._process.poll() is not None

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text()[-2000:] if log.exists() else "it has no log"

    def begin(self) -> None:
        """Starts it."""
        self.folder.mkdir(exist_ok=True)
        arguments = [
            part for key, value in self.settings.items() for part in (f"--{key}", str(value))
        ]
        self._process = subprocess.Popen(
            ending_with_parent([self._program, *self._first_arguments(), *arguments]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def _first_arguments(self) -> list[str]:
        return []

    async def answers(self) -> bool:
        with contextlib.suppress(RedisError, OSError):
            return bool(await self.do("PING"))
        return False

    async def do(self, *command: str | int | bytes) -> Any:
        """One command, over a connection of its own."""
        async with self.client() as client:
            untyped: Any = client
            return await untyped.execute_command(*command)

    def client(self) -> redis.asyncio.Redis:
        """A connection."""
        how = urlencode({"protocol": 2, "password": self.settings.get("requirepass", "")})
        # a server that is not up yet is asked again by `start`
        return embedded.redis_client(f"{self.url}?{how}", timeout=timedelta(seconds=5))

    async def has_replica(self) -> bool:
        """Whether a replica is connected."""
        info = await self.do("INFO", "replication")
        return bool(info.get("slave0", {}).get("state") == "online")

    async def in_step(self) -> bool:
        """Whether a replica takes what is written now. It may be `online` and not begin for a second."""
        async with self.client() as client:
            await client.publish("", "")  # the replica is told of it, and no key is touched
            return bool(await client.wait(1, 200))

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It hangs, with its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It hangs no more."""
        os.kill(self.pid, signal.SIGCONT)


class Sentinel(Server):
    """A sentinel that watches a primary under a name."""

    def __init__(self, program: Path, folder: Path, name: str, primary: Server) -> None:
        super().__init__(program, folder, port=free_port())
        self.settings = {}
        self._configuration = (
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/log\n"
            f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {name} 300\n"
            f"sentinel failover-timeout {name} 2000\n"
        )

    def _first_arguments(self) -> list[str]:
        path = self.folder / "sentinel.conf"
        path.write_text(self._configuration)
        return [str(path), "--sentinel"]


class Pair:
    """A primary and its replica."""

    def __init__(self, program: Path, folder: Path, **settings: str | int) -> None:
        self.primary = Server(program, folder / "a", port=free_port(), **settings)
        self.replica = Server(
            program,
            folder / "b",
            port=free_port(),
            replicaof=f"127.0.0.1 {self.primary.port}",
            **settings,
        )

    @property
    def url(self) -> str:
        """With both as candidates."""
        return f"redis://{self.primary.where},{self.replica.where}"

    async def start(self) -> None:
        """Starts both and returns when they are in step."""
        await self.primary.start()
        await self.replica.start()
        await wait_until(self.primary.in_step, PATIENCE)

    async def fail_over(self) -> None:
        """The primary dies and the replica takes its place."""
        self.primary.kill()
        await self.replica.do("REPLICAOF", "NO", "ONE")
        self.replica.settings.pop("replicaof", None)
        self.primary.settings["replicaof"] = f"127.0.0.1 {self.replica.port}"
        self.primary, self.replica = self.replica, self.primary

    def kill(self) -> None:
        self.primary.kill()
        self.replica.kill()


class Cluster:
    """Three primaries of a cluster, without replicas unless they are added."""

    _SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self.nodes = [self._server(number) for number in range(len(self._SLOTS))]

    def _server(self, number: int) -> Server:
        return Server(
            self._program,
            self._folder / str(number),
            port=free_port(),
            cluster_enabled="yes",
            cluster_port=free_port(),
            cluster_node_timeout=500,
            cluster_replica_validity_factor=0,
        )

    @property
    def url(self) -> str:
        return "redis-cluster://" + ",".join(node.where for node in self.nodes)

    async def start(self) -> None:
        """Returns when all agree on who has which slot."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        first = self.nodes[0]
        for epoch, (node, (low, high)) in enumerate(zip(self.nodes, self._SLOTS, strict=True), 1):
            await node.do("CLUSTER", "SET-CONFIG-EPOCH", epoch)
            await node.do("CLUSTER", "ADDSLOTSRANGE", low, high)
            await self._meet(node, first)
        await wait_until(self._agreed, PATIENCE)

    @staticmethod
    async def _meet(node: Server, first: Server) -> None:
        if node is not first:
            port = first.settings["cluster-port"]
            await node.do("CLUSTER", "MEET", "127.0.0.1", first.port, port)

    async def _agreed(self) -> bool:
        for node in self.nodes:
            info = (await node.do("CLUSTER", "INFO")).decode()
            known = f"cluster_known_nodes:{len(self.nodes)}\r\n"
            if "cluster_state:ok" not in info or known not in info:
                return False
        return True

    async def owner(self, slot: int) -> Server:
        """Who has a slot."""
        for low, high, (_, port, *_), *_ in await self.nodes[0].do("CLUSTER", "SLOTS"):
            if low <= slot <= high:
                return next(node for node in self.nodes if node.port == port)
        raise LookupError(slot)

    async def begin_move(self, slot: int, source: Server, target: Server) -> None:
        """From now on keys of the slot that are not at the source are asked for at the target."""
        source_id, target_id = (
            await source.do("CLUSTER", "MYID"),
            await target.do("CLUSTER", "MYID"),
        )
        await target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        await source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)

    async def end_move(self, slot: int, source: Server, target: Server) -> None:
        """Moves the keys, then the slot."""
        while keys := await source.do("CLUSTER", "GETKEYSINSLOT", slot, 100):
            await source.do("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        target_id = await target.do("CLUSTER", "MYID")
        for node in (target, source, *(set(self.nodes) - {source, target})):
            await node.do("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    async def add_replica(self, primary: Server) -> Server:
        """A replica of one of the primaries, in step."""
        replica = self._server(len(self.nodes))
        self.nodes.append(replica)
        await replica.start()
        await self._meet(replica, self.nodes[0])
        primary_id = str(await primary.do("CLUSTER", "MYID"), "ascii")

        async def known() -> bool:
            return primary_id in str(await replica.do("CLUSTER", "NODES"))

        await wait_until(known, PATIENCE)
        await replica.do("CLUSTER", "REPLICATE", primary_id)
        await wait_until(primary.has_replica, PATIENCE)
        return replica

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()


@contextlib.asynccontextmanager
async def running(*servers: Server | Pair | Cluster) -> AsyncIterator[None]:
    """Starts them, and kills them in the end."""
    try:
        for server in servers:
            await server.start()
        yield
    finally:
        for server in servers:
            server.kill()
