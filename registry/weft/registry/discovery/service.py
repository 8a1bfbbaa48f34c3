"""weft.v1.DiscoveryService over the index."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc

from weft import rpc
from weft.registry.catalog import Catalog
from weft.registry.discovery.query import Criteria
from weft.registry.discovery.words import Found, Words
from weft.registry.index import Index
from weft.rpc import paging
from weft.v1 import agent_pb2, discovery_pb2_grpc
from weft.v1 import discovery_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]

_PAGE, _MAX_PAGE = 20, 1_000
_LIMIT = 50
_BREATH = 200  # agents looked at before others get their turn


class DiscoveryService(discovery_pb2_grpc.DiscoveryServiceServicer):
    """The servicer."""

    def __init__(self, *, index: Index, sets: Catalog, words: Words) -> None:
        self._index = index
        self._sets = sets
        self._words = words

    async def Find(self, request: pb.FindRequest, _: Context) -> pb.FindResponse:
        """See discovery.proto."""
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        criteria = Criteria(request.query, self._index, self._sets)
        listed = f"found {hashlib.sha256(request.query.SerializeToString(deterministic=True)).hexdigest()}"
        behind = paging.page_begin(request.page_token, made_for=listed, like=(0.0, ""))
        criteria.check_known()
        ranked = await self._words.find(request.query.text) if request.query.text else None
        matches = [match async for match in self._matches(criteria, ranked)]
        matches.sort(key=_place)
        response = pb.FindResponse(revision=self._index.revision)
        for match in matches:
            if behind is not None and _place(match) <= (float(behind[0]), str(behind[1])):
                continue
            if len(response.matches) == size:
                last = _place(response.matches[-1])
                response.next_page_token = paging.page_token(last, made_for=listed)
                break
            response.matches.append(match)
        return response

    async def Explain(self, request: pb.ExplainRequest, _: Context) -> pb.ExplainResponse:
        """See discovery.proto."""
        limit = paging.page_size(request.limit, default=_LIMIT, most=_MAX_PAGE, field="limit")
        criteria = Criteria(request.query, self._index, self._sets)
        ranked = await self._words.find(request.query.text) if request.query.text else None
        never = {
            field: f"no {kind.replace('_', ' ')} {name!r} was ever registered"
            for field, kind, name in criteria.unknown()
        }
        response = pb.ExplainResponse(revision=self._index.revision)
        explained: list[pb.Explanation] = []
        async for agent in self._agents(None):
            explained += [
                _explained(instance, criteria, ranked, never)
                for instance in agent.instances
                if request.instance_id in {"", instance.instance_id}
            ]
        if request.instance_id and not explained:
            raise rpc.NotFound(
                f"There is no instance {request.instance_id!r}. `weft agents` lists what there is.",
                reason="INSTANCE_UNKNOWN",
                metadata={"instance": request.instance_id},
            )
        response.considered = len(explained)
        response.found = sum(one.found for one in explained)
        response.explanations.extend(
            heapq.nsmallest(
                limit, explained, key=lambda one: (len(one.misses), one.agent, one.instance_id)
            )
        )
        return response

    async def _matches(
        self, criteria: Criteria, ranked: Mapping[str, Found] | None
    ) -> AsyncIterator[pb.AgentMatch]:
        """Agents with an instance that meets it, in no order."""
        asked = criteria.asked.agent
        async for agent in self._agents(ranked):
            if asked and agent.name != asked:
                continue
            found = [i for i in self._index.in_service(agent.name) if criteria.met_by(i)]
            if not found:
                continue
            match = pb.AgentMatch(agent=agent.name, description=agent.description, instances=found)
            if ranked is not None:
                match.rank = ranked[agent.name].rank
            match.skills.extend(self._skills(agent, criteria, ranked))
            yield match

    def _skills(
        self, agent: agent_pb2.Agent, criteria: Criteria, ranked: Mapping[str, Found] | None
    ) -> list[pb.MatchedSkill]:
        typed = criteria.skills(agent.services)
        if ranked is None or criteria.asked.accepts or criteria.asked.produces:
            return typed
        said = {
            method.path: method.skill.description
            for ref in agent.services
            if (service := self._sets.service(ref)) is not None
            for method in service.methods
        }
        paths = [path for path in ranked[agent.name].methods if path in said]
        return [pb.MatchedSkill(path=path, description=said[path]) for path in paths]

    async def _agents(self, ranked: Mapping[str, Found] | None) -> AsyncIterator[agent_pb2.Agent]:
        """Agents, all or those of `ranked`; other calls get their turn in between."""
        names = list(self._index.names() if ranked is None else ranked)
        for number, name in enumerate(names):
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            agent = self._index.agent(name)
            if agent is not None:
                yield agent


def _place(match: pb.AgentMatch) -> tuple[float, str]:
    return -match.rank, match.agent


def _explained(
    instance: agent_pb2.Instance,
    criteria: Criteria,
    ranked: Mapping[str, Found] | None,
    never: Mapping[str, str],
) -> pb.Explanation:
    explanation = pb.Explanation(agent=instance.agent, instance_id=instance.instance_id)
    for miss in criteria.misses(instance):
        miss.reason = never.get(miss.field, miss.reason)
        explanation.misses.append(miss)
    if ranked is not None and instance.agent not in ranked:
        explanation.misses.add(field="text", reason="its agent's words do not have it")
    explanation.found = not explanation.misses
    return explanation
