"""The registry with three replicas on one PostgreSQL: how fast it answers, how fast changes are seen, and what a death costs.

10,000 instances of 1,000 agents at 100 hosts that hold a lease each, 1,000 watchers of everything and 200 clients by ADS
that follow the endpoints of all agents, spread over the replicas; each watcher and client has a connection of its own.

resolve_p99_ms   99 of 100 calls of Resolve at one replica took at most so long, one after another, as their caller sees it
                 over loopback, with all the others connected, hosts reporting and nothing changing. The caller speaks
                 HTTP/2 on its own loop; the figures have the same by grpc.aio, and of a bare grpc.aio server beside it,
                 which is what the machine takes for any call at the time.
watchers_all_s   from the announcement of one change until the last of all watchers has it
xds_all_ms       the same until the last of all ADS clients has it, beside the watchers

Then a replica is killed (-9) under calls: no call fails, no instance is lost, and the watchers know in the end, each
resumed by its revision, what the registry says; the benchmark fails where that is not so.

python benchmarks/registry.py [--json] [--quick] [--rounds 7]
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import measure
import parts
import registry_roles as roles
import uvloop

from weft import embedded, rpc
from weft.registry.wire import Connection
from weft.rpc.testing import wait_until
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc

_PATIENCE = timedelta(seconds=60)
_TAKEN_OVER = (
    4.0  # seconds in which leases of a dead replica are; one that is lost runs out a ttl later
)
_LOOK = 0.1  # seconds
_REPLICAS = 3
_RESOLVE = b"/weft.v1.RegistryService/Resolve"

Ask = Callable[[registry_pb2.ResolveRequest], Awaitable[registry_pb2.ResolveResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything. `processes` of hosts, and of watchers; `called`: agents that are called meanwhile."""

    hosts: int = 100
    instances: int = 100  # of a host
    agents: int = 1_000
    watchers: int = 1_000
    clients: int = 200
    processes: int = 2
    called: int = 20
    ttl: float = 4.0  # seconds, of leases
    rate: float = 50.0  # calls a second, and as many questions
    questions: int = 3_000  # of a round


QUICK = Size(
    hosts=10, instances=20, agents=20, watchers=30, clients=12, called=5, ttl=1.5, questions=300
)


@contextlib.asynccontextmanager
async def by_grpc(address: str) -> AsyncIterator[Ask]:
    """Asks by grpc.aio, whose calls go through threads of its own."""
    async with rpc.Channel(address) as channel:
        yield registry_pb2_grpc.RegistryServiceStub(channel).Resolve


@contextlib.asynccontextmanager
async def by_wire(address: str) -> AsyncIterator[Ask]:
    """Asks by the registry's own little client, on the loop: what remains is the replica and the way to it."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[None] = loop.create_future()
    host, _, port = address.rpartition(":")
    _, connection = await loop.create_connection(
        lambda: Connection(address, lambda: lost.set_result(None)), host, int(port)
    )

    async def ask(request: registry_pb2.ResolveRequest) -> registry_pb2.ResolveResponse:
        answered: asyncio.Future[bytes] = loop.create_future()

        def heard(_: int, message: bytes | None) -> None:
            if message is not None:
                answered.set_result(message)
            elif not answered.done():
                answered.set_exception(AssertionError("no answer"))

        connection.call(_RESOLVE, request.SerializeToString(), heard)
        return registry_pb2.ResolveResponse.FromString(await answered)

    yield ask
    connection.close()
    await lost


class Bench:
    """The processes, and what is measured of them."""

    def __init__(self, size: Size, database_url: str, stack: contextlib.AsyncExitStack) -> None:
        self.size = size
        self.figures: dict[str, Any] = {}
        self._database_url = database_url
        self._stack = stack
        self._turn = 0
        self.addresses: list[str] = []
        self.bare = ""
        self.replicas: list[parts.Part] = []
        self._watchers: list[parts.Part] = []

    async def start(self) -> None:
        """Starts everything."""
        size = self.size
        # All of them before this process speaks gRPC, whose threads do not go well with fork.
        self.replicas = [
            await parts.start(self._stack, __file__, "replica") for _ in range(_REPLICAS)
        ]
        hosts = [await parts.start(self._stack, __file__, "hosts") for _ in range(size.processes)]
        self._watchers = [
            await parts.start(self._stack, __file__, "watchers") for _ in range(size.processes)
        ]
        self._clients = await parts.start(self._stack, __file__, "clients")
        self._callers = await parts.start(self._stack, __file__, "callers")
        bare = await parts.start(self._stack, __file__, "bare")
        for replica in self.replicas:
            begun = await replica.do("begin", database_url=self._database_url, ttl=self.size.ttl)
            self.addresses.append(begun["address"])
        measure.progress("registering")
        began = time.monotonic()
        await asyncio.gather(
            *(
                each.do(
                    "begin",
                    registries=",".join(self.addresses),
                    prefix=str(number),
                    hosts=size.hosts // size.processes,
                    instances=size.instances,
                    agents=size.agents,
                )
                for number, each in enumerate(hosts)
            )
        )
        self.figures["registered_s"] = round(time.monotonic() - began, 2)
        self._member = roles.Member(self.addresses[0])
        await self._member.register()
        await wait_until(self._all_there, _PATIENCE)
        async with rpc.Channel(self.addresses[0]) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            answer = await stub.Resolve(registry_pb2.ResolveRequest(agent="agent-1"))
        begun = await bare.do("begin", answer=answer.SerializeToString().hex())
        self.bare = begun["address"]
        measure.progress("connecting")
        count = size.watchers // size.processes
        for each in self._watchers:
            await each.do(
                "begin", registries=self.addresses, count=count, revision=self._member.revision
            )
        await self._clients.do(
            "begin", registries=self.addresses, count=size.clients, agents=size.agents
        )
        await self.change()

    async def resolve(self, ask: Ask) -> list[float]:
        """Times of questions where an agent is, one after another, in milliseconds."""
        times: list[float] = []
        expected = self.size.hosts * self.size.instances // self.size.agents
        for count in range(-100, self.size.questions):
            agent = f"agent-{random.randrange(self.size.agents)}"
            request = registry_pb2.ResolveRequest(agent=agent)
            began = time.perf_counter()
            found = await ask(request)
            took = time.perf_counter() - began
            if len(found.instances) < expected:
                raise AssertionError(f"{agent} has {len(found.instances)} instances only")
            if count >= 0:  # the first ones open the connection
                times.append(took * 1e3)
        return sorted(times)

    async def change(self) -> tuple[float, float]:
        """Announces one change; seconds until all watchers have it, and until all ADS clients have."""
        await self._clients.do("count")
        began = time.monotonic()
        revision = await self._member.turn()
        heard = await asyncio.gather(
            self._clients.do("heard"),
            *(each.do("heard", revision=revision) for each in self._watchers),
        )
        return max(each["at"] for each in heard[1:]) - began, heard[0]["at"] - began

    async def killed(self) -> None:
        """Kills the replica that most depends on, under calls; notes what came of it. Raises AssertionError."""
        await self._callers.do(
            "begin",
            registries=",".join(self.addresses),
            agents=self.size.called,
            rate=self.size.rate,
        )
        before = await self._leases()
        await self._member.leave()
        measure.progress("killing a replica")
        killed = time.monotonic()
        await self.replicas[0].kill()
        fewest, back = await self._watch_leases(self.addresses[1], killed)
        self.figures["leases_back_s"] = round(back, 2)
        self._member = roles.Member(self.addresses[1])
        await self._member.register()
        seconds, xds = await self.change()
        self.figures["watchers_all_after_kill_s"] = round(seconds, 3)
        self.figures["xds_all_after_kill_ms"] = round(xds * 1e3, 1)
        await self._member.leave()
        done = await self._callers.do("stop")
        self.figures |= {"calls_under_kill": done["calls"], "resolves_under_kill": done["asked"]}
        self.figures["failed_calls"] = len(done["failed"])
        wanted = self.size.hosts * self.size.instances
        self.figures["fewest_instances"], self.figures["instances"] = fewest, wanted
        if done["failed"]:
            raise AssertionError(f"calls failed: {done['failed'][:3]}")
        if fewest < wanted:
            raise AssertionError(f"{wanted - fewest} instances were lost; leases before: {before}")
        await self._agree()

    async def _agree(self) -> None:
        """That all watchers know what the registry says of what they heard of. Raises AssertionError."""
        async with rpc.Channel(self.addresses[1]) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            latest = (await stub.Resolve(registry_pb2.ResolveRequest(agent="agent-0"))).revision
            truth = {agent.name: roles.picture(agent) for agent in await _agents(stub)}
        await asyncio.gather(*(each.do("heard", revision=latest) for each in self._watchers))
        found = [await each.do("found") for each in self._watchers]
        for each in found:
            for state in each["states"]:
                wrong = [name for name, seen in state.items() if truth[name] != seen]
                if wrong or not state:
                    raise AssertionError(f"a watcher has another picture of {wrong}")
        self.figures["watchers_resumed"] = sum(each["resumed"] for each in found)
        self.figures["watchers_snapshots"] = sum(each["snapshots"] for each in found)
        self.figures["watchers_pictures"] = sum(len(each["states"]) for each in found)
        if self.figures["watchers_snapshots"] or any(each["back"] for each in found):
            raise AssertionError("a watcher was not resumed by its revision")

    async def _watch_leases(self, address: str, killed: float) -> tuple[int, float]:
        """The fewest instances in service until no lease can be lost any more; seconds until all had a living holder."""
        fewest, back = sys.maxsize, 0.0
        async with rpc.Channel(address) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            while time.monotonic() < killed + _TAKEN_OVER + self.size.ttl or not back:
                agents = await _agents(stub)
                serving = agent_pb2.INSTANCE_STATE_SERVING
                there = sum(i.state == serving for a in agents for i in a.instances)
                fewest = min(fewest, there)
                listed = await stub.ListReplicas(registry_pb2.ListReplicasRequest())
                held = sum(r.leases for r in listed.replicas if r.address != self.addresses[0])
                if not back and held >= self.size.hosts:
                    back = time.monotonic() - killed
                if time.monotonic() > killed + _PATIENCE.total_seconds():
                    raise AssertionError(f"{held} of {self.size.hosts} leases came back")
                await asyncio.sleep(_LOOK)
        return fewest, back

    async def _leases(self) -> list[int]:
        async with rpc.Channel(self.addresses[1]) as channel:
            stub = registry_pb2_grpc.RegistryServiceStub(channel)
            listed = await stub.ListReplicas(registry_pb2.ListReplicasRequest())
        return [replica.leases for replica in listed.replicas]

    async def _all_there(self) -> bool:
        """Whether every replica has every instance, in service."""
        for address in self.addresses:
            async with rpc.Channel(address) as channel:
                agents = await _agents(registry_pb2_grpc.RegistryServiceStub(channel))
            serving = agent_pb2.INSTANCE_STATE_SERVING
            there = sum(i.state == serving for agent in agents for i in agent.instances)
            if there < self.size.hosts * self.size.instances:
                return False
        return True


async def _agents(stub: Any) -> list[agent_pb2.Agent]:
    found: list[agent_pb2.Agent] = []
    token = ""
    while True:
        request = registry_pb2.ListAgentsRequest(page_size=200, page_token=token)
        page = await stub.ListAgents(request)
        found += page.agents
        token = page.next_page_token
        if not token:
            return found


@contextlib.asynccontextmanager
async def bench(size: Size) -> AsyncIterator[Bench]:
    """Everything, started."""
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        endpoints = await stack.enter_async_context(embedded.launch(Path(data)))
        made = Bench(size, endpoints.database_url, stack)
        await made.start()
        yield made


async def run(size: Size, rounds: int) -> tuple[Mapping[str, Sequence[float]], dict[str, Any]]:
    """Measures."""
    ratios: dict[str, list[float]] = {"resolve_p99_ms": [], "watchers_all_s": [], "xds_all_ms": []}
    async with bench(size) as made, contextlib.AsyncExitStack() as stack:
        found: dict[str, list[float]] = {}
        ways = {
            "resolve_p99_ms": by_wire(made.addresses[0]),
            "resolve_p99_ms_by_grpc_aio": by_grpc(made.addresses[0]),
            "resolve_p99_ms_by_grpc_aio_of_a_bare_server": by_grpc(made.bare),
        }
        asks = {key: await stack.enter_async_context(way) for key, way in ways.items()}
        for number in range(1, rounds + 1):
            measure.progress(f"round {number} of {rounds}")
            for key, ask in asks.items():
                times = await made.resolve(ask)
                found.setdefault(key, []).append(times[len(times) * 99 // 100])
                found.setdefault(key.replace("p99", "p50"), []).append(times[len(times) // 2])
            ratios["resolve_p99_ms"].append(found["resolve_p99_ms"][-1])
            watchers, xds = await made.change()
            ratios["watchers_all_s"].append(watchers)
            ratios["xds_all_ms"].append(xds * 1e3)
        figures = made.figures
        for key, values in (found | ratios).items():
            ordered = sorted(values)
            figures[key] = round(ordered[len(ordered) // 2], 3)
            figures[f"{key}_worst"] = round(ordered[-1], 3)
        await stack.aclose()
        figures["replicas_mb"] = [replica.memory() for replica in made.replicas]
        await made.killed()
        figures["replicas_mb_after_kill"] = [replica.memory() for replica in made.replicas[1:]]
        measure.progress("done")
    return ratios, figures


def main() -> None:
    """Runs a role, or the measurement."""
    parser = measure.arguments(__doc__, rounds=7)
    parser.add_argument("--quick", action="store_true", help="little of everything, for tests")
    options = parser.parse_args()
    if options.role:
        uvloop.run(parts.play(roles.ROLES, options.role))
        sys.exit()
    ratios, figures = uvloop.run(run(QUICK if options.quick else Size(), options.rounds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
