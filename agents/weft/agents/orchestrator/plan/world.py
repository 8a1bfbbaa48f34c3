"""What a workflow is checked against: agents and their skills, message types, other workflows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from weft.agents.orchestrator.plan.types import MessageTypes
from weft.v1 import agent_pb2, options_pb2

DEFAULT_TIMEOUT: Final = timedelta(seconds=30)  # what SkillOptions.default_timeout says of itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A method of an agent."""

    path: str
    """As gRPC dials it: "/package.Service/Method"."""
    input_type: str
    output_type: str
    client_streaming: bool = False
    server_streaming: bool = False
    repeatable: bool = False
    """Whether a second call does no harm: IDEMPOTENT, or no side effects."""
    effects: bool = True
    """Whether it may have side effects."""
    timeout: timedelta = DEFAULT_TIMEOUT
    scopes: tuple[str, ...] = ()
    """Needed of a caller, all of them."""
    messages_only: bool = False
    """Whether it is reached by durable messages, and not by calls."""
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent, as it is registered."""

    name: str
    tags: frozenset[str] = frozenset()
    labels: tuple[Mapping[str, str], ...] = ()
    """Those of each of its instances."""
    methods: Mapping[str, Method] = field(default_factory=dict)
    """By path."""

    def good_at(self, path: str, tags: Collection[str], labels: Mapping[str, str]) -> bool:
        """Whether it serves a method, has the tags, it or its skill, and an instance with the labels."""
        method = self.methods.get(path)
        if method is None or not set(tags) <= self.tags | method.tags:
            return False
        return not labels or any(labels.items() <= each.items() for each in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWorkflow:
    """A version of a workflow, as others use it."""

    name: str
    version: int
    input_type: str
    output_type: str
    contains: frozenset[str] = frozenset()
    """Names of the workflows in it, and of those in these."""


class World(Protocol):
    """What is known when a workflow is checked. It does not change."""

    @property
    def types(self) -> MessageTypes:
        """Messages of all types."""
        ...

    @property
    def agents(self) -> Mapping[str, Agent]:
        """Agents by name, in the order of their names."""
        ...

    def workflow(self, name: str, version: int) -> StoredWorkflow | None:
        """A version of a workflow, 0 for the newest; None: there is none."""
        ...


class DescriptorWorld:
    """A world made of what the registry says: agents as of `Watch`, and the descriptor sets of `GetDescriptors`.

    Making one takes some milliseconds for each descriptor set: make it when contracts change.

    Args:
        agents: the agents.
        sets: serialized descriptor sets by digest. A service whose set is not there, or does not fit the others, is not
            known.
        workflows: versions of workflows that may be used.
    """

    def __init__(
        self,
        agents: Iterable[agent_pb2.Agent],
        sets: Mapping[str, bytes],
        workflows: Iterable[StoredWorkflow] = (),
    ) -> None:
        self._registered = tuple(sorted(agents, key=lambda agent: agent.name))
        digests = {s.descriptor_digest for agent in self._registered for s in agent.services}
        # Sets that no agent names any more are those of a saved world that only lend types.
        named = [sets[digest] for digest in sorted(digests & sets.keys())]
        others = [sets[digest] for digest in sorted(sets.keys() - digests)]
        self._sets = dict(sets)
        self.types = MessageTypes(named + others)
        self.agents: Mapping[str, Agent] = {
            agent.name: _agent(agent, sets, self.types) for agent in self._registered
        }
        self._workflows = _by_version(workflows)

    def workflow(self, name: str, version: int) -> StoredWorkflow | None:
        """A version of a workflow, 0 for the newest; None: there is none."""
        return self._workflows.get((name, version))

    def knowing(self, workflows: Iterable[StoredWorkflow]) -> DescriptorWorld:
        """The same world with these workflows instead of those it had. This costs nothing."""
        made = copy(self)
        made._workflows = _by_version(workflows)  # noqa: SLF001  its own kind
        return made


def _by_version(workflows: Iterable[StoredWorkflow]) -> dict[tuple[str, int], StoredWorkflow]:
    found: dict[tuple[str, int], StoredWorkflow] = {}
    for each in workflows:
        found[each.name, each.version] = each
        newest = found.get((each.name, 0))
        if newest is None or newest.version < each.version:
            found[each.name, 0] = each
    return found


def _agent(agent: agent_pb2.Agent, sets: Mapping[str, bytes], types: MessageTypes) -> Agent:
    services = [
        _service(types, ref.name) for ref in agent.services if ref.descriptor_digest in sets
    ]
    return Agent(
        name=agent.name,
        tags=frozenset(agent.tags),
        labels=tuple(dict(instance.labels) for instance in agent.instances),
        methods={
            method.path: method
            for service in services
            if service is not None
            for method in _methods(service)
        },
    )


def _service(types: MessageTypes, name: str) -> ServiceDescriptor | None:
    try:
        return types.pool.FindServiceByName(name)
    except KeyError:
        return None


def _methods(service: ServiceDescriptor) -> Iterator[Method]:
    for method in service.methods:
        yield _method(service, method)


def _method(service: ServiceDescriptor, method: MethodDescriptor) -> Method:
    # Options of a pool of its own have extensions only when read again with this process's classes.
    options = MethodOptions.FromString(method.GetOptions().SerializeToString())
    skill = options.Extensions[options_pb2.skill]
    timeout = skill.default_timeout.ToTimedelta() if skill.HasField("default_timeout") else None
    return Method(
        path=f"/{service.full_name}/{method.name}",
        input_type=method.input_type.full_name,
        output_type=method.output_type.full_name,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        repeatable=options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        effects=options.idempotency_level != MethodOptions.NO_SIDE_EFFECTS,
        timeout=timeout if timeout and timeout > timedelta(0) else DEFAULT_TIMEOUT,
        scopes=tuple(skill.required_scopes),
        messages_only=skill.delivery == options_pb2.DELIVERY_MESSAGE,
        tags=frozenset(skill.tags),
    )
