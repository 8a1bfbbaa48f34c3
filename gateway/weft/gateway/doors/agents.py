"""GET /agents and GET /agents/{agent}: who is in the mesh, and what each can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.failures import AgentUnknown
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding import percent
from weft.gateway.transcoding.catalog import Catalog, Method
from weft.v1 import agent_pb2

Json = dict[str, Any]

_ALL = "/agents"
_ONE = "/agents/"
_IN_SERVICE = frozenset({agent_pb2.INSTANCE_STATE_SERVING, agent_pb2.INSTANCE_STATE_DEGRADED})


class AgentPages:
    """The pages about agents. Where instances run is the mesh's own business and is not told.

    Args:
        agents: those that are known now, by name.
        admit: lets a caller in, or raises rpc.Error.
    """

    def __init__(
        self,
        agents: Callable[[], Mapping[str, agent_pb2.Agent]],
        admit: Callable[[Exchange], Awaitable[object]],
    ) -> None:
        self._agents = agents
        self._admit = admit
        self._skills: dict[str, list[Json]] = {}

    def use(self, catalog: Catalog) -> None:
        """Takes the methods to describe."""
        self._skills = {}
        for method in catalog.methods.values():
            self._skills.setdefault(method.agent.name, []).append(_skill(method))

    def find(self, exchange: Exchange) -> Callable[[Exchange], Awaitable[None]] | None:
        """The page a request asks for."""
        if exchange.path == _ALL:
            return self._list
        if exchange.path.startswith(_ONE) and "/" not in exchange.path[len(_ONE) :]:
            return self._one
        return None

    async def _list(self, exchange: Exchange) -> None:
        await self._answer(
            exchange, lambda: {"agents": [self._shown(each) for _, each in sorted(self._known())]}
        )

    async def _one(self, exchange: Exchange) -> None:
        def found() -> Json:
            try:
                agent = self._agents().get(percent.decode(exchange.path[len(_ONE) :]))
            except ValueError:
                agent = None
            if agent is None:
                raise AgentUnknown
            return self._shown(agent)

        await self._answer(exchange, found)

    async def _answer(self, exchange: Exchange, show: Callable[[], Json]) -> None:
        try:
            await self._admit(exchange)
            shown = orjson.dumps(show())
        except rpc.Error as failed:
            await exchange.fail(failed, failures.aip193)
        else:
            await exchange.reply(200, shown, headers=[(b"cache-control", b"no-store")])

    def _known(self) -> list[tuple[str, agent_pb2.Agent]]:
        return list(self._agents().items())

    def _shown(self, agent: agent_pb2.Agent) -> Json:
        states = [instance.state for instance in agent.instances]
        return {
            "name": agent.name,
            "description": agent.description,
            "tags": list(agent.tags),
            "tier": agent.tier,
            "inService": sum(state in _IN_SERVICE for state in states),
            "instances": len(states),
            "skills": self._skills.get(agent.name, []),
        }


def _skill(method: Method) -> Json:
    skill = method.skill
    return {
        "name": method.name,
        "method": method.full_name,
        "description": skill.description,
        "tags": list(skill.tags),
        "input": method.input.full_name,
        "output": method.output.full_name,
        "streams": _streams(method),
        "idempotency": method.idempotency.name,
        "requiredScopes": list(skill.required_scopes),
        "needsApproval": skill.needs_approval,
        "defaultTimeout": f"{skill.default_timeout.total_seconds():g}s",
        "cacheTtl": f"{skill.cache_ttl.total_seconds():g}s",
        "examples": list(skill.examples),
        "routes": [
            {"method": binding.http_method, "path": binding.template.text}
            for binding in method.bindings
        ],
    }


def _streams(method: Method) -> str:
    sides = {"request": method.client_streaming, "reply": method.server_streaming}
    return "both" if all(sides.values()) else next((k for k, v in sides.items() if v), "none")
