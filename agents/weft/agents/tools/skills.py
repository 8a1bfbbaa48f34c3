"""Skills of the mesh as tools: what they take, give and need is in their contracts, as the registry has them.

A skill is called as any agent calls it: in the name of the caller, within its deadline, in its trace and conversation, with
the idempotency key of the use. The agent asks for the scopes again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterator
from datetime import timedelta
from typing import Any, Protocol

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodOptions,
)
from google.protobuf.message import Message

from weft import rpc
from weft.agents.tools.failures import ResultTooLarge
from weft.agents.tools.tool import NAME, Keeping, Run, Tool
from weft.agents.tools.using import KEY, current_use
from weft.rpc.descriptors import descriptor_sets
from weft.rpc.methods import DEFAULT_TIMEOUT
from weft.v1 import agent_pb2, options_pb2, registry_pb2, registry_pb2_grpc

_PAGE = 1_000  # what the registry gives at a time
_LOOK = 10.0  # seconds
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
_MOST_BYTES = 4 * 1024 * 1024  # of a stream
_IN_SERVICE = frozenset({agent_pb2.INSTANCE_STATE_SERVING, agent_pb2.INSTANCE_STATE_DEGRADED})

Chosen = Callable[[str, MethodDescriptor], bool]


class Channels(Protocol):
    """The way to agents, as `weft.agents.Mesh`."""

    def channel(self, agent: str) -> grpc.aio.Channel:
        """The channel to an agent."""
        ...


async def skills(
    mesh: Channels,
    registry: grpc.aio.Channel,
    *,
    agents: Collection[str] = (),
    chosen: Chosen = lambda *_: True,
) -> list[Tool]:
    """The skills of agents that are in service now, as tools.

    Left out are skills that a person must approve, that take a stream, or that are reached by message only.

    Args:
        mesh: the way to agents.
        registry: a channel to the registry.
        agents: names of those that are wanted; empty: all.
        chosen: tells by agent and method whether a skill is wanted.

    Raises:
        rpc.Error: the registry does not say.
    """
    stub = registry_pb2_grpc.RegistryServiceStub(registry)
    try:
        found = [each async for each in _listed(stub) if not agents or each.name in agents]
        digests = {s.descriptor_digest for each in found for s in each.services}
        sets = await descriptor_sets(stub, digests, _LOOK)
    except grpc.aio.AioRpcError as failed:
        raise rpc.error_from_call(failed) from None
    made: dict[str, Tool] = {}
    for agent in found:
        for service in agent.services:
            described = _described(service.name, sets.get(service.descriptor_digest, b""))
            for tool in _tools(mesh, agent.name, described, chosen):
                made.setdefault(tool.name, tool)
    return list(made.values())


async def _listed(stub: Any) -> Any:
    token = ""
    while True:
        request = registry_pb2.ListAgentsRequest(page_size=_PAGE, page_token=token)
        answer = await stub.ListAgents(request, timeout=_LOOK)
        for each in answer.agents:
            if any(instance.state in _IN_SERVICE for instance in each.instances):
                yield each
        token = answer.next_page_token
        if not token:
            return


def _described(service: str, serialized: bytes) -> ServiceDescriptor | None:
    pool = descriptor_pool.DescriptorPool()
    files = {each.name: each for each in FileDescriptorSet.FromString(serialized).file}
    added: set[str] = set()

    def add(file: FileDescriptorProto) -> None:
        if file.name not in added:
            added.add(file.name)
            for name in file.dependency:
                if name in files:
                    add(files[name])
            pool.Add(file)

    try:
        for each in files.values():
            add(each)
        found: ServiceDescriptor = pool.FindServiceByName(service)
    except (KeyError, TypeError):  # what is registered builds no contract
        return None
    return found


def _tools(
    mesh: Channels, agent: str, service: ServiceDescriptor | None, chosen: Chosen
) -> Iterator[Tool]:
    for method in service.methods if service is not None else ():
        # Options of another pool have extensions only when read again with this process's classes.
        options = MethodOptions.FromString(method.GetOptions().SerializeToString())
        skill = options.Extensions[options_pb2.skill]
        by_message = skill.delivery == options_pb2.DELIVERY_MESSAGE
        if method.client_streaming or skill.needs_approval or by_message:
            continue
        if chosen(agent, method):
            yield _tool(mesh, agent, method, options)


def _tool(mesh: Channels, agent: str, method: MethodDescriptor, options: MethodOptions) -> Tool:
    skill = options.Extensions[options_pb2.skill]
    reads = options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    request: Any = message_factory.GetMessageClass(method.input_type)
    response: Any = (
        _messages_of(method.output_type)
        if method.server_streaming
        else message_factory.GetMessageClass(method.output_type)
    )
    path = f"/{method.containing_service.full_name}/{method.name}"
    implied = skill.default_timeout.ToTimedelta() or timedelta(seconds=DEFAULT_TIMEOUT)
    ttl = skill.cache_ttl.ToTimedelta()
    words = "_".join(each.lower() for each in _WORDS.findall(method.name))
    name = skill.tool_name if NAME.fullmatch(skill.tool_name) else f"{agent}_{words}"[:64]
    call = _streamed if method.server_streaming else _called
    return Tool(
        name=name,
        description=skill.description or f"{method.name} of the agent {agent}.",
        request=request,
        response=response,
        run=_run(lambda: mesh.channel(agent), path, response, call),
        scopes=tuple(skill.required_scopes),
        effects=not reads,
        timeout=implied,
        keeping=Keeping(ttl=ttl, audience="everybody" if skill.cache_shared else "identity")
        if reads and ttl > timedelta(0)
        else None,
    )


def _run(
    channel: Callable[[], grpc.aio.Channel],
    path: str,
    response: type[Message],
    call: Callable[..., Awaitable[Message]],
) -> Run:
    async def run(request: Message) -> Message:
        use = current_use()
        metadata = ((KEY, use.key),) if use is not None else ()
        try:
            return await call(channel(), path, request, response, metadata)
        except grpc.aio.AioRpcError as failed:
            raise rpc.error_from_call(failed) from None

    return run


async def _called(
    channel: grpc.aio.Channel, path: str, request: Message, response: Any, metadata: Any
) -> Message:
    method: Any = channel.unary_unary(path, type(request).SerializeToString, response.FromString)
    found: Message = await method(request, metadata=metadata)
    return found


async def _streamed(
    channel: grpc.aio.Channel, path: str, request: Message, response: Any, metadata: Any
) -> Message:
    """All messages of a stream together."""
    inner = type(response().messages.add())
    method: Any = channel.unary_stream(path, type(request).SerializeToString, inner.FromString)
    call = method(request, metadata=metadata)
    whole = response()
    size = 0
    try:
        async for message in call:
            size += message.ByteSize()
            if size > _MOST_BYTES:
                raise ResultTooLarge
            whole.messages.append(message)
    finally:
        call.cancel()  # nothing where it has ended
    result: Message = whole
    return result


def _messages_of(kind: Any) -> type[Message]:
    """A message that holds those of a stream."""
    file = FileDescriptorProto(
        name=f"weft/tools/messages/{kind.full_name}.proto",
        package=f"weft.tools.messages.{kind.full_name}",
        syntax="proto3",
        dependency=[kind.file.name],
    )
    file.message_type.add(name="Messages").field.add(
        name="messages",
        number=1,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{kind.full_name}",
        label=FieldDescriptorProto.LABEL_REPEATED,
    )
    pool = kind.file.pool
    pool.Add(file)
    made: type[Message] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName(f"{file.package}.Messages")
    )
    return made
