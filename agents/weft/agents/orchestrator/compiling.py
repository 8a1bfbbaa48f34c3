"""Compiles workflows by what the registry says of agents, and compiles them again by what it said then."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import Message

from weft import rpc
from weft.agents.orchestrator.engine.model import StoredRun
from weft.agents.orchestrator.engine.plans import Checked, Compiled, Interpreting
from weft.agents.orchestrator.plan.compile import compile_workflow, contained
from weft.agents.orchestrator.plan.faults import WorkflowInvalid
from weft.agents.orchestrator.plan.world import DescriptorWorld, StoredWorkflow
from weft.agents.orchestrator.run.interpreter import Interpreter, seed_of
from weft.postgres import Database
from weft.rpc.descriptors import descriptor_sets
from weft.v1 import agent_pb2, registry_pb2, registry_pb2_grpc
from weft.v1.identity_pb2 import Identity
from weft.v1.workflow_pb2 import WorkflowSpec

_PAGE = 1_000  # what the registry gives at a time
_LOOK = 10.0  # seconds
_WORLDS = 64  # kept of those that workflows were compiled in


class WorldCompiler:
    """An engine.plans.Compiler.

    Args:
        database: with the queries of weft.agents.orchestrator.sql.
        registry: a channel to the registry.
    """

    def __init__(self, database: Database, registry: grpc.aio.Channel) -> None:
        self._database = database
        self._registry = registry_pb2_grpc.RegistryServiceStub(registry)
        self._sets: dict[str, bytes] = {}
        self._known: tuple[bytes, DescriptorWorld] | None = None
        self._restored: dict[bytes, DescriptorWorld] = {}

    async def check(self, spec: WorkflowSpec, tenant: str, identity: Identity | None) -> Checked:
        """Checks a workflow that a caller submits, against the agents that are registered now.

        Raises:
            rpc.Unavailable: the registry or the database is away.
        """
        agents = await self._agents()
        workflows = await self._workflows(spec, tenant)
        world = (await self._world(agents)).knowing(workflows)
        # Where no door says who calls, nothing is kept from anybody.
        scopes = None if identity is None or identity.all_scopes else frozenset(identity.scopes)
        try:
            plan = compile_workflow(spec, world, scopes)
        except WorkflowInvalid as invalid:
            return Checked(faults=invalid.faults)
        kept = await self._enough(spec, agents, workflows)
        compiled = Compiled(plan=plan, types=plan.types, world=_written(kept, workflows))
        return Checked(output_type=plan.output_type, compiled=compiled)

    async def restore(self, spec: WorkflowSpec, version: int, world: bytes) -> Compiled:
        """Compiles a workflow again that was checked once, whatever has become of its agents."""
        agents, workflows = _read(world)
        known = await self._then(agents)
        plan = compile_workflow(spec, known.knowing(workflows), version=version)
        return Compiled(plan=plan, types=plan.types, world=world)

    def interpreter(self, compiled: Compiled, run: StoredRun, given: Message) -> Interpreting:
        """The interpreter of a run."""
        return Interpreter(compiled.plan, run.info(), given, seed=seed_of(run.origin))

    # What the registry says

    async def _agents(self) -> list[agent_pb2.Agent]:
        agents: list[agent_pb2.Agent] = []
        token = ""
        try:
            while True:
                request = registry_pb2.ListAgentsRequest(page_size=_PAGE, page_token=token)
                answer = await self._registry.ListAgents(request, timeout=_LOOK)
                agents += [_bare(agent) for agent in answer.agents]
                token = answer.next_page_token
                if not token:
                    break
            missing = _digests(agents) - self._sets.keys()
            self._sets.update(await descriptor_sets(self._registry, missing, _LOOK))
        except grpc.aio.AioRpcError as failed:
            raise rpc.error_from_call(failed) from None
        return agents

    async def _world(self, agents: list[agent_pb2.Agent]) -> DescriptorWorld:
        key = _serialized(agents)
        if self._known is None or self._known[0] != key:
            self._known = (key, DescriptorWorld(agents, self._sets))
        return self._known[1]

    # What workflows run

    async def _workflows(self, spec: WorkflowSpec, tenant: str) -> list[StoredWorkflow]:
        found = [
            await self._workflow(tenant, name, version)
            for name, version in dict.fromkeys(contained(spec))
            if 0 <= version < 2**62
        ]
        return [each for each in found if each is not None]

    async def _workflow(self, tenant: str, name: str, version: int) -> StoredWorkflow | None:
        if version:
            row = await self._database.fetchrow("find_workflow", tenant, name, version)
        else:
            row = await self._database.fetchrow("newest_workflow", tenant, name)
        if row is None:
            return None
        spec = WorkflowSpec.FromString(row["spec"])
        inner = _read(row["world"])[1]
        names = {each.name for each in inner}.union(*(each.contains for each in inner))
        return StoredWorkflow(
            name=name,
            version=row["version"],
            input_type=spec.input_type,
            output_type=row["output_type"],
            contains=frozenset(names),
        )

    # What is kept of the world

    async def _enough(
        self,
        spec: WorkflowSpec,
        agents: list[agent_pb2.Agent],
        workflows: list[StoredWorkflow],
    ) -> list[agent_pb2.Agent]:
        """The agents that a workflow needs to be compiled again; their contracts are stored."""
        text = str(spec)
        few = [agent for agent in agents if self._needed(agent, text)]
        try:
            compile_workflow(spec, DescriptorWorld(few, self._sets).knowing(workflows))
        except WorkflowInvalid:
            few = agents
        digests = sorted(_digests(few) & self._sets.keys())
        contents = [self._sets[digest] for digest in digests]
        await self._database.execute("keep_descriptor_sets", digests, contents)
        return few

    def _needed(self, agent: agent_pb2.Agent, text: str) -> bool:
        """Whether a workflow may need an agent: it names it, or something that its contract declares."""
        if agent.name in text:
            return True
        for digest in _digests([agent]) & self._sets.keys():
            for file in FileDescriptorSet.FromString(self._sets[digest]).file:
                names = [each.name for each in file.service]
                names += [each.name for each in file.message_type]
                if any(f"{file.package}.{name}" in text for name in names):
                    return True
        return False

    async def _then(self, agents: list[agent_pb2.Agent]) -> DescriptorWorld:
        key = _serialized(agents)
        known = self._restored.get(key)
        if known is None:
            missing = sorted(_digests(agents) - self._sets.keys())
            if missing:
                rows = await self._database.fetch("descriptor_sets", missing)
                self._sets.update({row["digest"]: row["content"] for row in rows})
            known = self._restored[key] = DescriptorWorld(agents, self._sets)
            if len(self._restored) > _WORLDS:
                del self._restored[next(iter(self._restored))]
        return known


def _digests(agents: Iterable[agent_pb2.Agent]) -> set[str]:
    return {service.descriptor_digest for agent in agents for service in agent.services}


def _bare(agent: agent_pb2.Agent) -> agent_pb2.Agent:
    """An agent without what changes from moment to moment."""
    bare = agent_pb2.Agent(name=agent.name, tags=agent.tags, services=agent.services)
    labels = {tuple(sorted(instance.labels.items())) for instance in agent.instances}
    bare.instances.extend(agent_pb2.Instance(labels=dict(each)) for each in sorted(labels))
    return bare


def _serialized(agents: Iterable[agent_pb2.Agent]) -> bytes:
    raw: bytes = registry_pb2.ListAgentsResponse(agents=agents).SerializeToString(
        deterministic=True
    )
    return raw


def _written(agents: Iterable[agent_pb2.Agent], workflows: Iterable[StoredWorkflow]) -> bytes:
    stored = [asdict(each) | {"contains": sorted(each.contains)} for each in workflows]
    world = {"agents": base64.b64encode(_serialized(agents)).decode(), "workflows": stored}
    return json.dumps(world, sort_keys=True).encode()


def _read(world: bytes) -> tuple[list[agent_pb2.Agent], list[StoredWorkflow]]:
    if not world:
        return [], []
    read: Mapping[str, object] = json.loads(world)
    agents = registry_pb2.ListAgentsResponse.FromString(base64.b64decode(str(read["agents"])))
    given = read["workflows"]
    assert isinstance(given, list)
    workflows = [
        StoredWorkflow(**(each | {"contains": frozenset(each["contains"])})) for each in given
    ]
    return list(agents.agents), workflows
