"""What mTLS costs a mesh: the same calls over encrypted and over plain connections, in one interleaved run.

call_sequential, call_32   a call at xds:///echo with mTLS / the same without; one caller, 32 in flight
gateway_32                 a call through the gateway's gRPC door to an agent with mTLS / to one without
members_sequential         a call with mTLS to a server that asks who calls / to one that asks for a certificate only
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import measure
import uvloop

from weft import embedded, mtls, rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.gateway import Gateway
from weft.registry import Registry

_TURNS = (0, 1, 1, 0, 1, 0, 0, 1)
_REQUEST = echo_pb2.SayRequest(text="x" * 100)
_TRUST_DOMAIN = "bench.weft"
_BOOTSTRAP = "grpc.TEST_ONLY_DO_NOT_USE_IN_PROD.xds_bootstrap_config"
_PLAIN = "plain"


class Least(Echo):
    """The least a method can do."""

    async def Say(self, request: echo_pb2.SayRequest, context: Any) -> echo_pb2.SayResponse:  # noqa: ARG002
        """Says it back."""
        return echo_pb2.SayResponse(text=request.text)


@contextlib.asynccontextmanager
async def member(home: str, path: str, *names: str) -> AsyncIterator[mtls.Credentials | None]:
    """Credentials of the authority in a folder; "plain": none."""
    if home == _PLAIN:
        yield None
        return
    who = mtls.SpiffeId.parse(f"spiffe://{_TRUST_DOMAIN}/{path}")
    async with mtls.issued(Path(home), lambda _: who, names=lambda _: names) as credentials:
        yield credentials


async def serve_registry(home: str, database_url: str) -> None:
    """The registry."""
    name = mtls.part_name(_TRUST_DOMAIN, "registry")
    async with (
        member(home, "part/registry", name, "127.0.0.1") as own,
        Registry(database_url=database_url, address="127.0.0.1:0", mtls=own) as registry,
    ):
        print(registry.address, flush=True)
        await asyncio.Event().wait()


async def serve_agent(home: str, registry: str) -> None:
    """An agent."""
    async with member(home, "client/bench") as own, Host(registry=registry, mtls=own) as host:
        host.add(Least())
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


async def serve_gateway(home: str, registry: str, database_url: str) -> None:
    """The gateway."""
    async with (
        member(home, "part/gateway") as own,
        Gateway(
            registry=registry,
            database_url=database_url,
            listen="127.0.0.1:0",
            grpc_listen="127.0.0.1:0",
            mtls=own,
        ) as gateway,
    ):
        await gateway.ready()
        print(gateway.grpc_address, flush=True)
        await asyncio.Event().wait()


async def serve_direct(home: str, asks: str) -> None:
    """A server of Weft with mTLS; `asks`: "who" calls, or "nothing" beyond a certificate."""
    name = mtls.part_name(_TRUST_DOMAIN, "registry")
    async with member(home, "part/registry", name) as own:
        assert own is not None
        server = rpc.Server(mtls=own) if asks == "who" else rpc.Server(credentials=own.server())
        server.add(echo_pb2_grpc.add_EchoServiceServicer_to_server, Least())
        async with server:
            print(server.address, flush=True)
            await asyncio.Event().wait()


ROLES = {
    "registry": serve_registry,
    "agent": serve_agent,
    "gateway": serve_gateway,
    "direct": serve_direct,
}


async def run(rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures in rounds; within each, what is compared stands side by side."""
    with tempfile.TemporaryDirectory() as data:
        home = Path(data) / "mtls"
        mtls.Authority.made(home, _TRUST_DOMAIN)
        async with (
            embedded.launch(Path(data) / "data") as servers,
            measure.children(__file__) as start,
            member(str(home), "client/bench") as own,
            contextlib.AsyncExitStack() as stack,
        ):
            servers_of: dict[str, measure.Child] = {}
            calls: dict[str, measure.Call] = {}

            async def add(name: str, child: measure.Child, channel: grpc.aio.Channel) -> None:
                say = echo_pb2_grpc.EchoServiceStub(await stack.enter_async_context(channel)).Say
                await say(_REQUEST, timeout=10)
                servers_of[name] = child
                calls[name] = lambda: say(_REQUEST, timeout=10)

            for kind, folder, shown in (("mtls", str(home), own), ("plain", _PLAIN, None)):
                url = await measure.fresh_database(servers.database_url, kind)
                registry = start("registry", folder, url)
                agent = start("agent", folder, registry.told)
                gateway = start("gateway", folder, registry.told, url)
                bootstrap = rpc.xds_bootstrap(registry.told, mtls=shown)
                by_name = rpc.Channel("xds:///echo", mtls=shown, options=((_BOOTSTRAP, bootstrap),))
                await add(f"call_{kind}", agent, by_name)
                await add(f"gateway_{kind}", gateway, rpc.Channel(gateway.told))
            for asks in ("who", "nothing"):
                direct = start("direct", str(home), asks)
                await add(f"asks_{asks}", direct, rpc.Channel(direct.told, mtls=own))
            return await _measured(calls, servers_of, rounds, seconds)


async def _measured(
    calls: dict[str, measure.Call], servers: dict[str, measure.Child], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    pairs = {
        "call_sequential": ("call_mtls", "call_plain", 1),
        "call_32": ("call_mtls", "call_plain", 32),
        "gateway_32": ("gateway_mtls", "gateway_plain", 32),
        "members_sequential": ("asks_who", "asks_nothing", 1),
    }
    ratios: dict[str, list[float]] = {key: [] for key in pairs}
    figures: dict[str, list[float]] = {}
    length = seconds / len(_TURNS) * 2
    for number in range(rounds + 1):
        for key, (ours, theirs, in_flight) in pairs.items():
            # Many short windows in balanced order (Thue-Morse): a drift of the machine favours neither.
            order = [(ours, theirs)[turn ^ (number & 1)] for turn in _TURNS]
            got: dict[str, list[float]] = {ours: [], theirs: []}
            for name in order:
                before = servers[name].cpu()
                rate = await measure.rate(calls[name], seconds=length, in_flight=in_flight)
                got[name].append(rate)
                spent = (servers[name].cpu() - before) / (rate * length) * 1e6
                if number:
                    figures.setdefault(f"{name}_{in_flight}_per_second", []).append(rate)
                    figures.setdefault(f"{name}_{in_flight}_server_cpu_us", []).append(spent)
            if number:  # the first round warms up
                ratios[key].append(sum(got[ours]) / sum(got[theirs]))
        measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
    return ratios, {key: round(sorted(v)[len(v) // 2], 1) for key, v in figures.items()}


def main() -> None:
    """Runs a role, or the measurement."""
    options = measure.arguments(__doc__, rounds=12).parse_args()
    if options.role:
        uvloop.run(ROLES[options.role](*options.rest))  # type: ignore[operator]
        sys.exit()
    ratios, figures = asyncio.run(run(options.rounds, options.seconds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
