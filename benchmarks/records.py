"""What the request log and the audit log cost.

CPU of the gateway process for a unary call of about 1 KB each way (Connect JSON, keys and scopes off), with its log as JSON
lines on standard error, in interleaved rounds of gateways that differ in nothing else.

all_vs_off        CPU seconds per request, every request logged / none
share_vs_off      the same where one request in a hundred is logged, and each that failed
bodies_vs_off     the same where every request is logged with what it asks for
audit_vs_off      the same where the audit log has a line for each call, all of which have effects
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import connect
import gateway_json
import measure
import uvloop

from weft import embedded
from weft.agents import Host
from weft.agents.echo import Echo
from weft.gateway import Gateway
from weft.gateway.records import RequestLogSettings
from weft.telemetry import logs

_IN_FLIGHT = 16
_PATH = "/weft.echo.v1.EchoService/SayOnce"
_BODY = b'{"say":{"text":"%s"}}' % (b"x" * 1000)
KINDS = ("off", "all", "share", "bodies", "audit")
_REQUESTS = {
    "off": "off",
    "all": "all",
    "share": "0.01",
    "bodies": "all",
    "audit": "off",
}


async def serve_agent(registry: str) -> None:
    """Plays the agent."""
    async with Host(registry=registry) as host:
        host.add(Echo("echo"))
        await host.start()
        print(host.server.address, flush=True)
        await host.wait()


class Client(connect.Client):
    """Sends a call with effects over and over."""

    def __init__(self, address: str) -> None:
        super().__init__(address, "application/json", _BODY)
        self.request = self.request.replace(
            b" /weft.support.v1.QualityService/Review ", f" {_PATH} ".encode()
        )


async def serve_gateway(registry: str, database_url: str, kind: str) -> None:
    """Plays the gateway, whose log goes nowhere."""
    gateway = Gateway(
        registry=registry,
        database_url=database_url,
        listen="127.0.0.1:0",
        grpc_listen="127.0.0.1:0",
        request_log=RequestLogSettings.read(_REQUESTS[kind], bodies=kind == "bodies"),
        audit=kind == "audit",
    )
    async with gateway:
        await gateway.ready()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        logs.setup("gateway", form="json")
        print(gateway.url.removeprefix("http://"), flush=True)
        await asyncio.Event().wait()


async def run(rounds: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Measures all kinds in rounds."""
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    async with contextlib.AsyncExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory())
        servers = await stack.enter_async_context(embedded.launch(Path(data)))
        start = await stack.enter_async_context(measure.children(gateway_json.__file__))
        serve = await stack.enter_async_context(measure.children(__file__))
        registry = start("registry", servers.database_url)
        serve("agent", registry.told)
        gateways = {}
        clients = {}
        for kind in KINDS:
            gateways[kind] = serve("gateway", registry.told, servers.database_url, kind)
            clients[kind] = Client(gateways[kind].told)
        for client in clients.values():  # who connects has to ask soon
            await client.connect()
        for number in range(rounds + 1):
            for kind in sorted(KINDS, reverse=bool(number % 2)):
                gateway = gateways[kind]
                before = gateway.cpu()
                rate = await measure.rate(clients[kind].call, seconds=seconds, in_flight=_IN_FLIGHT)
                if number:
                    cpu[kind].append((gateway.cpu() - before) / (rate * seconds) * 1e6)
            measure.progress(f"round {number} of {rounds}" + (" done" if number == rounds else ""))
    ratios = {
        f"{kind}_vs_off": [a / b for a, b in zip(cpu[kind], cpu["off"], strict=True)]
        for kind in KINDS
        if kind != "off"
    }
    return ratios, {f"{kind}_cpu_us": round(statistics.median(cpu[kind]), 1) for kind in KINDS}


ROLES: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "gateway": serve_gateway,
    "agent": serve_agent,
}


def main() -> None:
    """Runs the measurement, or plays a part in it."""
    options = measure.arguments(__doc__, rounds=10).parse_args()
    if options.role:
        uvloop.run(ROLES[options.role](*options.rest))
        return
    ratios, figures = uvloop.run(run(options.rounds, options.seconds))
    measure.report(ratios, figures, as_json=options.json)


if __name__ == "__main__":
    main()
