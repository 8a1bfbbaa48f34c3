"""A mesh of real processes that can be brought into trouble, each at an address that stays."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.faults.processes import Child, python
from tests.ports import free_port

from weft import embedded, rpc
from weft.echo.v1 import echo_pb2_grpc
from weft.rpc.testing import wait_until
from weft.testing.messages_server import MessagesServer
from weft.v1 import (
    agent_pb2,
    broker_pb2_grpc,
    orchestrator_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)

_PATIENCE = timedelta(seconds=60)  # of a start on a busy machine
_MODELS = """
[endpoints.here]
kind = "claude"
url = "{url}"
[models.cheap]
endpoint = "here"
model = "claude-haiku-5-5"
[models.dear]
endpoint = "here"
model = "diamond"
[models.busy]
endpoint = "here"
model = "overloaded"
timeout = 2.0
"""
_PRICES = """{"date": "2026-10-24", "source": "a drill", "unit": "USD per million tokens", "models": {
"claude-haiku-5-5": {"input": 0.1, "write_5m": 0.125, "write_1h": 0.2, "read": 0.01, "output": 0.5},
"overloaded": {"input": 0.1, "write_5m": 0.125, "write_1h": 0.2, "read": 0.01, "output": 0.5},
"diamond": {"input": 9e6, "write_5m": 9e6, "write_1h": 9e6, "read": 9e6, "output": 9e6}}}
"""
_LIMITS = "per=all rate=5/s burst=5 methods=weft.echo.v1.EchoService/Gather name=drill"
_AGENTS = ("echo", "narrow", "slow", "thinker", "victim", "wrong")


class Mesh:
    """Parts by name, and clients of them.

    Attributes:
        listen: address by part.
        metrics: address of /metrics by part.
        grpc: address of the gateway's gRPC door.
    """

    def __init__(self, folder: Path, servers: embedded.Endpoints, models: str) -> None:
        self.folder = folder
        self._servers = servers
        names = ("registry", "broker", "gateway", "orchestrator", *_AGENTS, "edge")
        self.listen = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.metrics = {name: f"127.0.0.1:{free_port()}" for name in names}
        self.grpc = f"127.0.0.1:{free_port()}"
        (folder / "weft.toml").write_text(_MODELS.format(url=models))
        (folder / "prices.json").write_text(_PRICES)
        self.certificate(timedelta(days=1))
        commands: dict[str, list[str]] = {
            "registry": python("weft.cli", "registry"),
            "broker": python("weft.cli", "broker"),
            "gateway": python("weft.cli", "gateway"),
            "orchestrator": python("weft.cli", "agents", "serve", "orchestrator"),
            "echo": python("weft.cli", "agents", "serve", "weft.agents.echo:Echo"),
            "slow": python("weft.cli", "agents", "serve", "slow=weft.agents.echo:Echo"),
            "victim": python("weft.cli", "agents", "serve", "victim=weft.agents.echo:Echo"),
            "wrong": python("weft.cli", "agents", "serve", "wrong=weft.agents.echo:Echo"),
            "narrow": python("tests.drills.agents"),
            "thinker": python("weft.cli", "agents", "serve", "thinker=tests.drills.agents:Thinker"),
            "edge": python("weft.cli", "gateway"),
        }
        self.parts = {
            name: Child(command, folder / f"{name}.log", self.environment(name))
            for name, command in commands.items()
        }

    def environment(self, name: str = "") -> dict[str, str]:
        """Settings of a part, or of a client."""
        kept = {key: "" for key in os.environ if key.startswith("WEFT_")}
        settings = {
            **kept,
            "ANTHROPIC_API_KEY": "none",
            "WEFT_CONFIG": str(self.folder / "weft.toml"),
            "WEFT_DATA": str(self.folder / "data"),
            "WEFT_DATABASE_URL": self._servers.database_url,
            "WEFT_REDIS_URL": self._servers.redis_url,
            "WEFT_MODEL_PRICES": str(self.folder / "prices.json"),
            "WEFT_REGISTRY": self.listen["registry"],
            "WEFT_REGISTRY_LISTEN": self.listen["registry"],
            "WEFT_REGISTRY_METRICS": self.metrics["registry"],
            "WEFT_BROKER": self.listen["broker"],
            "WEFT_BROKER_LISTEN": self.listen["broker"],
            "WEFT_BROKER_METRICS": self.metrics["broker"],
            "WEFT_GATEWAY": f"http://{self.listen['gateway']}",
            "WEFT_GATEWAY_LISTEN": self.listen["gateway"],
            "WEFT_GATEWAY_GRPC_LISTEN": self.grpc,
            "WEFT_GATEWAY_METRICS": self.metrics["gateway"],
            "WEFT_GATEWAY_LIMITS": _LIMITS,
            "WEFT_GATEWAY_JOBS_AT_ONCE": "2",
            "WEFT_GATEWAY_WEBHOOK_NETWORKS": "127.0.0.0/8",
            "WEFT_GATEWAY_BREAKER_OPEN": "1s",
            "WEFT_ORCHESTRATOR_AT_ONCE": "2",
            "WEFT_AGENTS_DRAIN": "1s",
        }
        if name in self.listen:
            settings["WEFT_AGENTS_LISTEN"] = self.listen[name]
            settings["WEFT_AGENTS_METRICS"] = self.metrics[name]
        if name == "edge":
            settings |= {
                "WEFT_GATEWAY_LISTEN": self.listen["edge"],
                "WEFT_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
                "WEFT_GATEWAY_METRICS": self.metrics["edge"],
                "WEFT_GATEWAY_TLS_CERTIFICATE": str(self.folder / "edge.pem"),
                "WEFT_GATEWAY_TLS_KEY": str(self.folder / "edge.key"),
            }
        return settings

    @property
    def redis_url(self) -> str:
        """Where its messages are."""
        return self._servers.redis_url

    async def start(self, *names: str) -> None:
        """Starts parts, and returns when they are ready."""
        for name in names:
            self.parts[name].start()
        for name in names:
            part = self.parts[name]
            await wait_until(lambda part=part: self._ready(part), _PATIENCE)  # type: ignore[misc]

    def _ready(self, part: Child) -> bool:
        assert part.alive, part.said()
        if part.name == "narrow":
            return part.name in self.targets_text()
        return part.told(b"ready: ")

    def targets_text(self) -> str:
        """What the registry tells Prometheus."""
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://{self.metrics['registry']}/targets", timeout=5).text
        return ""

    def certificate(self, life: timedelta) -> None:
        """Gives the part `edge` a new certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "drill")])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + life)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (self.folder / "edge.pem").write_bytes(made.public_bytes(pem))
        (self.folder / "edge.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    # Clients

    @contextlib.asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        """The gateway."""
        url = f"http://{self.listen['gateway']}"
        async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
            yield client

    @contextlib.asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Any]:
        """An agent, called at its address."""
        async with rpc.Channel(self.listen[name]) as channel:
            yield echo_pb2_grpc.EchoServiceStub(channel)

    @contextlib.asynccontextmanager
    async def broker(self) -> AsyncIterator[Any]:
        """The broker."""
        async with rpc.Channel(self.listen["broker"]) as channel:
            yield broker_pb2_grpc.BrokerServiceStub(channel)

    @contextlib.asynccontextmanager
    async def orchestrator(self) -> AsyncIterator[Any]:
        """The orchestrator."""
        async with rpc.Channel(self.listen["orchestrator"]) as channel:
            yield orchestrator_pb2_grpc.OrchestratorServiceStub(channel)

    async def states(self, agent: str) -> Sequence[str]:
        """States of an agent's instances."""
        async with rpc.Channel(self.listen["registry"]) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            found = await stub.ListAgents(registry_pb2.ListAgentsRequest(page_size=1_000))
        return [
            agent_pb2.InstanceState.Name(instance.state)
            for each in found.agents
            if each.name == agent
            for instance in each.instances
        ]

    # Servers

    @contextlib.contextmanager
    def stopped(self, server: str) -> Iterator[None]:
        """The processes of "redis" or "postgres" hang."""
        pids = list(_processes(self.folder / "data", server))
        assert pids, server
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)


def _processes(data: Path, server: str) -> Iterator[int]:
    """A server's processes, those that started others first."""
    parents: dict[int, int] = {}
    first = 0
    for entry in sorted(Path("/proc").iterdir(), key=lambda each: len(each.name)):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            program = command.split(" ")[0].rpartition("/")[2]
            if str(data) in command and program.startswith(_PROGRAMS[server]):
                first = int(entry.name)
    if first:
        yield first
        yield from (pid for pid, parent in parents.items() if parent == first)


_PROGRAMS = {"redis": ("valkey-server", "redis-server"), "postgres": ("postgres",)}


@contextlib.asynccontextmanager
async def running(folder: Path, *names: str) -> AsyncIterator[Mesh]:
    """A mesh in a folder, whose path is short: of these parts, or of all."""
    async with (
        MessagesServer() as models,
        embedded.launch(folder / "data") as servers,
    ):
        mesh = Mesh(folder, servers, models.url)
        wanted = list(names or mesh.parts)
        try:
            await mesh.start("registry")
            await mesh.start(*(name for name in wanted if name != "registry"))
            yield mesh
        finally:
            for part in mesh.parts.values():
                if part.returncode is None and part.starts:
                    part.ask_to_end()
            for part in mesh.parts.values():
                if part.starts and not await part.ended(10):
                    part.kill()
