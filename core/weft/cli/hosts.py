"""The agents that one process serves, on as many ports as it takes: a port serves a gRPC service once."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from weft.cli import failures

if TYPE_CHECKING:
    from weft.agents import Host
    from weft.agents.serving import Provided
    from weft.config import Settings
    from weft.mtls import Credentials
    from weft.telemetry import Telemetry


class Hosts:
    """A host, and one more for each further agent of a service that is served already.

    Leaving it drains them, the first one last: its mesh is that of all agents.

    Args:
        settings: of the hosts.
        watched: where calls are counted and traced.
        given: what their meshes have for agents.
        mtls: what they show; None: nothing is encrypted.
    """

    def __init__(
        self,
        settings: Settings,
        watched: Telemetry,
        given: Provided | None,
        mtls: Credentials | None = None,
    ) -> None:
        self._mtls = mtls
        self._settings = settings
        self._watched = watched
        self._given = given
        self._served: list[tuple[Host, set[str]]] = []
        self._stack = contextlib.AsyncExitStack()

    @property
    def first(self) -> Host:
        """The host that there is in any case."""
        return self._served[0][0]

    @property
    def addresses(self) -> list[str]:
        """Where they listen, once they are started."""
        return [host.server.address for host, _ in self._served]

    async def __aenter__(self) -> Self:
        await self._another()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def add(self, servicer: object, agent: str | None = None) -> str:
        """Adds an agent before `start`, and returns its name.

        Args:
            servicer: as of weft.agents.Host.
            agent: its name; None: the one its contract gives.

        Raises:
            ContractError: the servicer derives from no generated class.
            WrongSetting: it needs a port of its own, and the port is settled.
        """
        from weft.agents import contract_of

        service = contract_of(servicer).service
        free = [each for each in self._served if service not in each[1]]
        if not free and not self._settings.agents_listen.endswith(":0"):
            raise failures.WrongSetting(
                f"Several agents serve {service}, each on a port of its own: "
                "let --listen end with :0, or serve them in processes of their own."
            )
        host, services = free[0] if free else await self._another()
        services.add(service)
        return host.add(servicer, agent=agent)

    async def _another(self) -> tuple[Host, set[str]]:
        from weft.agents import serving

        host = serving.host_of(self._settings, self._watched, self._given, self._mtls)
        await self._stack.enter_async_context(host)
        self._served.append((host, set()))
        return self._served[-1]

    async def start(self) -> None:
        """Starts them all; raises as weft.agents.Host."""
        if (
            self._mtls is not None
        ):  # one certificate for all, or each start would change that of the former
            agents = frozenset().union(*(host.agents for host, _ in self._served))
            await asyncio.to_thread(self._mtls.serve, agents)
        for host, _ in self._served:
            await host.start()

    async def wait(self) -> None:
        """Returns when all are stopped; raises what ended one of them."""
        async with asyncio.TaskGroup() as waiting:
            for host, _ in self._served:
                waiting.create_task(host.wait())
