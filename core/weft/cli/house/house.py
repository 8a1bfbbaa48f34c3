"""All parts of a mesh on one machine, owned by one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Self

from weft import config, embedded
from weft.cli.failures import Failure
from weft.cli.house.child import Child, State
from weft.cli.rest import Gateway, serves
from weft.config import Remote, Settings

_STOP = timedelta(seconds=5)  # beyond what the calls that run are granted
_POLL = 0.02  # seconds
ALERTS = "alerts"
EDGE = "edge"
FLEET = "support"
KNOWLEDGE = "knowledge"
ORCHESTRATOR = "orchestrator"


class House:
    """Servers and parts of a mesh. Enter it in the main thread: the servers' lives hang on it.

        async with House(settings, environ=os.environ) as house:
            await house.ready()

    Leaving it stops the edge and the gateway first, which drains, then orchestrator, agents, broker, registry, what tells
    alerts, and servers.

    Args:
        settings: of the whole mesh; addresses must be fixed (see `with_free_ports`). There are as many replicas of the
            registry as `registry` has addresses.
        environ: what parts inherit beyond their settings.
        replicas: instances of an agent, by its name, where it shall be more than one.
        edge: whether there is an Envoy before it.
        report: told in words what happens.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str],
        replicas: Mapping[str, int] | None = None,
        edge: bool = False,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.children: list[Child] = []
        self.servers: dict[str, str] = {}
        self._environ = environ
        self._replicas = replicas or {}
        self._edge = edge
        self._report = report
        self._keeping: list[asyncio.Task[None]] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            servers = await stack.enter_async_context(
                embedded.launch(
                    self.settings.data,
                    redis_url=self.settings.redis_url or None,
                    database_url=self.settings.database_url or None,
                    on_progress=self._server_said,
                )
            )
            self.settings = dataclasses.replace(
                self.settings, redis_url=servers.redis_url, database_url=servers.database_url
            )
            self._sign()
            await stack.enter_async_context(self._parts())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._report("stopping; Ctrl-C again ends at once")
        await self._stack.aclose()
        self.servers = dict.fromkeys(self.servers, "stopped")

    def _sign(self) -> None:
        """Has the gateway sign identities and agents believe no others, by a key kept in the data folder."""
        from weft.cli import identities

        signer = identities.signer(self.settings, make=True)
        trusted = filter(None, [self.settings.identity_trust, signer.public])
        self.settings = dataclasses.replace(
            self.settings,
            identity_key=str(identities.key_file(self.settings)),
            identity_trust=",".join(trusted),
        )

    async def ready(self) -> None:
        """Returns when every part is.

        Raises:
            Failure: one does not come up.
        """
        waiting = {asyncio.create_task(_settled(child)) for child in self.children}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            await self._routed()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _routed(self) -> None:
        """Waits until the gateway has routes to the agents, which it hears of by the registry."""
        gateway = Gateway(url=self.settings.gateway, timeout=_STOP.total_seconds())
        while not await asyncio.to_thread(serves, gateway):  # noqa: ASYNC110 it tells nobody
            await asyncio.sleep(_POLL)

    def _server_said(self, text: str) -> None:
        self._report(text)
        name, _, what = text.partition(": ")
        if what.startswith(("ready", "died")):
            self.servers[name] = "ready" if what.startswith("ready") else "restarting"

    def kill(self) -> None:
        """Ends all parts at once; the servers end with this process."""
        for child in self.children:
            child.kill()

    @contextlib.asynccontextmanager
    async def _parts(self) -> AsyncIterator[None]:
        # The order in which they stop.
        grace = self.settings.agents_drain + _STOP
        edge = [self._child(EDGE, EDGE, "run", grace=grace)] if self._edge else []
        gateway = [self._child("gateway", "gateway", grace=grace)]
        anywhere = ("--metrics", "127.0.0.1:0")
        agents = [self._child("agents", "agents", "serve", FLEET, grace=grace)]
        for agent, count in self._replicas.items():
            for number in range(2, count + 1):
                command = ("agents", "serve", FLEET, "--only", agent, *anywhere)
                agents.append(self._child(f"{agent}-{number}", *command, grace=grace))
        agents.append(self._child(KNOWLEDGE, "agents", "serve", KNOWLEDGE, *anywhere, grace=grace))
        agents += [
            self._child(remote.name, *_remote_command(remote), grace=grace)
            for remote in self.settings.remotes.values()
        ]
        alone = ("agents", "serve", ORCHESTRATOR, *anywhere)
        orchestrator = [self._child(ORCHESTRATOR, *alone, grace=grace)]
        broker = [self._child("broker", "broker", grace=grace)]
        registry = [self._child("registry", "registry", grace=_STOP)]
        host = self.settings.registry_listen.rpartition(":")[0]
        for number, address in enumerate(self.settings.registry.split(",")[1:], 2):
            listen = f"{host}:{address.rpartition(':')[2]}"
            further = ("registry", "--listen", listen, *anywhere)
            registry.append(self._child(f"registry-{number}", *further, grace=_STOP))
        alerts = [self._child(ALERTS, ALERTS, grace=_STOP)] if self.settings.alerts_to else []
        self.children = [*alerts, *registry, *broker, *agents, *orchestrator, *gateway, *edge]
        self._keeping = [asyncio.create_task(child.keep()) for child in self.children]
        try:
            yield
        finally:
            for group in (edge, gateway, orchestrator, agents, broker, registry, alerts):
                await asyncio.gather(*(child.stop() for child in group))
            await asyncio.gather(*self._keeping, return_exceptions=True)

    def _child(self, name: str, *arguments: str, grace: timedelta) -> Child:
        settings = self.settings
        if name not in {"gateway", ORCHESTRATOR}:  # only these speak for callers
            settings = dataclasses.replace(settings, identity_key="")
        return Child(
            name,
            (sys.executable, "-m", "weft.cli", *arguments),
            environment={**self._environ, **config.environment(settings)},
            log=self.log(name),
            patience=grace,
            report=self._report,
        )

    def log(self, name: str) -> Path:
        """The log file of a part."""
        return self.settings.data.resolve() / "log" / f"{name}.log"


def _remote_command(remote: Remote) -> list[str]:
    """The command that runs a remote, and no secret in it."""
    command = ["remote", remote.protocol, remote.name, remote.url, "--metrics", "127.0.0.1:0"]
    command += ["--timeout", str(remote.timeout), "--refresh", str(remote.refresh)]
    command += ["--header", remote.header]
    for option, value in (
        ("--token-file", remote.token_file),
        ("--token-env", remote.token_env),
        ("--ca-file", remote.ca_file),
    ):
        if value:
            command += [option, value]
    for option, values in (("--scope", remote.scopes), ("--host", remote.hosts)):
        for value in values:
            command += [option, value]
    return [*command, *(["--plaintext"] if remote.plaintext else [])]


async def _settled(child: Child) -> None:
    await child.settled.wait()
    if child.state is State.FAILED:
        raise Failure(child.obituary)
