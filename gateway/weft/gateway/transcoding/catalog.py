"""Every method that can be called through the gateway, from the contracts that agents registered.

A catalog is an immutable snapshot. A fault in one contract is a problem in the list, never an exception:
the other agents stay reachable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from types import MappingProxyType

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from weft import rpc
from weft.gateway.transcoding.binding import Binding, BindingError, compile_rule
from weft.gateway.transcoding.json_codec import Codec, JsonOptions
from weft.gateway.transcoding.router import Route, Router
from weft.gateway.transcoding.schema import Schema, SchemaError
from weft.v1 import options_pb2

DEFAULT_TIMEOUT = timedelta(seconds=30)  # what SkillOptions.default_timeout says of itself


class Idempotency(Enum):
    """What may be done with a call that perhaps was made (google.protobuf.MethodOptions)."""

    UNKNOWN = MethodOptions.IDEMPOTENCY_UNKNOWN
    NO_SIDE_EFFECTS = MethodOptions.NO_SIDE_EFFECTS
    IDEMPOTENT = MethodOptions.IDEMPOTENT

    @property
    def repeatable(self) -> bool:
        """Whether a second call does no harm."""
        return self is not Idempotency.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What an agent serves: the names of its services, and the descriptor set that defines them.

    No services means those of the set that name the agent in their `weft.v1.agent` option.
    """

    agent: str
    descriptor_set: bytes = field(repr=False)
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill:
    """The options of a method (weft.v1.SkillOptions), with defaults filled in."""

    description: str = ""
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    default_timeout: timedelta = DEFAULT_TIMEOUT
    required_scopes: tuple[str, ...] = ()
    cache_ttl: timedelta = timedelta(0)
    fallback_text: str = ""
    needs_approval: bool = False
    tool_name: str = ""
    resource_uri: str = ""
    resource_type: str = ""
    prompt: bool = False
    limits: tuple[options_pb2.SkillLimit, ...] = ()
    units: int = 0
    cache_shared: bool = False
    hedge_after: timedelta = timedelta(0)
    as_job: bool = False
    job_keep: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The options of a service (weft.v1.AgentOptions) under the name the agent registered."""

    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Method:
    """A method of an agent."""

    path: str
    """As gRPC dials it: "/package.Service/Method"."""
    service: str
    name: str
    agent: Agent
    schema: Schema = field(repr=False)
    input: Descriptor
    output: Descriptor
    client_streaming: bool
    server_streaming: bool
    idempotency: Idempotency
    skill: Skill
    bindings: tuple[Binding, ...]
    request_codec: Codec = field(repr=False)
    response_codec: Codec = field(repr=False)

    @property
    def full_name(self) -> str:
        """As people write it: "package.Service/Method"."""
        return self.path[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One HTTP route."""

    method: Method
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something in a contract that is not served, and why."""

    agent: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What one contract amounts to; kept from catalog to catalog."""

    methods: tuple[Method, ...]
    problems: tuple[Problem, ...]


class Catalog:
    """All methods, by path and by HTTP route."""

    def __init__(
        self,
        contracts: Iterable[Contract] = (),
        *,
        previous: Catalog | None = None,
        options: JsonOptions | None = None,
    ) -> None:
        """Loads contracts. Of two that serve the same method or route the first is served.

        Loading a new descriptor set takes some 20 ms of CPU; known ones cost nothing.

        Args:
            contracts: What is registered.
            previous: A catalog made with the same options, whose unchanged parts are taken over.
            options: How replies are written.
        """
        self._loaded: dict[Contract, _Loaded] = {}
        self._schemas: dict[str, Schema] = {}
        methods: dict[str, Method] = {}
        problems: list[Problem] = []
        for contract in contracts:
            loaded = self._load(contract, previous, options)
            problems += loaded.problems
            for method in loaded.methods:
                if (first := methods.setdefault(method.path, method)) is not method:
                    problems.append(_taken(method, first))
        self.router: Router[Endpoint] = Router(
            Route(
                http_method=binding.http_method,
                template=binding.template,
                target=Endpoint(method=method, binding=binding),
            )
            for method in methods.values()
            for binding in method.bindings
        )
        for conflict in self.router.conflicts:
            lost, kept = conflict.dropped, conflict.kept
            text = (
                f"{lost.http_method} {lost.template.text} is served by "
                f"{kept.target.method.full_name} of {kept.target.method.agent.name}"
            )
            method = lost.target.method
            problems.append(Problem(agent=method.agent.name, subject=method.full_name, text=text))
        self.methods: Mapping[str, Method] = MappingProxyType(methods)
        self.problems: tuple[Problem, ...] = tuple(problems)

    def _load(
        self, contract: Contract, previous: Catalog | None, options: JsonOptions | None
    ) -> _Loaded:
        loaded = previous._loaded.get(contract) if previous else None  # noqa: SLF001  its own kind
        if loaded is None:
            try:
                schema = self._schema(contract.descriptor_set, previous, options)
            except SchemaError as failed:
                problem = Problem(agent=contract.agent, subject=contract.agent, text=str(failed))
                loaded = _Loaded((), (problem,))
            else:
                loaded = _load(contract, schema)
        for method in loaded.methods:
            self._schemas[method.schema.digest] = method.schema
        self._loaded[contract] = loaded
        return loaded

    def _schema(
        self, serialized: bytes, previous: Catalog | None, options: JsonOptions | None
    ) -> Schema:
        digest = hashlib.sha256(serialized).hexdigest()
        known = previous._schemas.get(digest) if previous else None  # noqa: SLF001  its own kind
        return self._schemas.get(digest) or known or Schema(serialized, options=options)


def _load(contract: Contract, schema: Schema) -> _Loaded:
    methods: list[Method] = []
    problems: list[Problem] = []
    services = {service.full_name: service for service in schema.services()}
    wanted = contract.services or [
        name for name, service in services.items() if _agent_options(service).name == contract.agent
    ]
    for name in wanted:
        if (service := services.get(name)) is None:
            text = "the descriptor set does not define this service"
            problems.append(Problem(agent=contract.agent, subject=name, text=text))
            continue
        for method in service.methods:
            made, faults = _method(contract.agent, service, method, schema)
            methods.append(made)
            problems += (
                Problem(agent=contract.agent, subject=made.full_name, text=text) for text in faults
            )
    return _Loaded(tuple(methods), tuple(problems))


def _method(
    agent: str, service: ServiceDescriptor, method: MethodDescriptor, schema: Schema
) -> tuple[Method, list[str]]:
    bindings: list[Binding] = []
    faults: list[str] = []
    options = method.GetOptions()
    if options.HasExtension(annotations_pb2.http):
        try:
            bindings = compile_rule(method, options.Extensions[annotations_pb2.http], schema)
        except BindingError as failed:
            faults.append(f"HTTP rule: {failed}")
    skill, skill_faults = _skill(options.Extensions[options_pb2.skill])
    request, reply = method.input_type, method.output_type
    request_codec = schema.codec(request.full_name)
    for number, example in enumerate(skill.examples, 1):
        try:
            request_codec.to_wire(example.encode())
        except rpc.InvalidArgument as wrong:
            faults.append(f"example {number}: {wrong.message}")
    made = Method(
        path=f"/{service.full_name}/{method.name}",
        service=service.full_name,
        name=method.name,
        agent=_agent(agent, _agent_options(service)),
        schema=schema,
        input=request,
        output=reply,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        idempotency=Idempotency(options.idempotency_level),
        skill=skill,
        bindings=tuple(bindings),
        request_codec=request_codec,
        response_codec=schema.codec(reply.full_name),
    )
    return made, faults + skill_faults


def _agent_options(service: ServiceDescriptor) -> options_pb2.AgentOptions:
    return service.GetOptions().Extensions[options_pb2.agent]


def _agent(name: str, options: options_pb2.AgentOptions) -> Agent:
    return Agent(
        name=name,
        description=options.description,
        tags=tuple(options.tags),
        tier=options.tier,
    )


def _skill(options: options_pb2.SkillOptions) -> tuple[Skill, list[str]]:
    faults: list[str] = []
    timeout = DEFAULT_TIMEOUT
    if options.HasField("default_timeout"):
        timeout = options.default_timeout.ToTimedelta()
        if timeout <= timedelta(0):
            faults.append(f"default_timeout {timeout.total_seconds()} s is not greater than 0")
            timeout = DEFAULT_TIMEOUT
    skill = Skill(
        description=options.description,
        tags=tuple(options.tags),
        examples=tuple(options.examples),
        default_timeout=timeout,
        required_scopes=tuple(options.required_scopes),
        cache_ttl=options.cache_ttl.ToTimedelta(),
        fallback_text=options.fallback_text,
        needs_approval=options.needs_approval,
        tool_name=options.tool_name,
        resource_uri=options.resource_uri,
        resource_type=options.resource_type,
        prompt=options.prompt,
        limits=tuple(options.limits),
        units=options.units,
        cache_shared=options.cache_shared,
        hedge_after=options.hedge_after.ToTimedelta(),
        as_job=options.as_job,
        job_keep=options.job_keep.ToTimedelta(),
    )
    return skill, faults


def _taken(method: Method, first: Method) -> Problem:
    text = f"is served by {first.agent.name} already"
    return Problem(agent=method.agent.name, subject=method.full_name, text=text)
