"""Nodes that call agents."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.runtime import ExecutionInfo, Runtime

from weft import rpc
from weft.agents.contract import ContractError, agent_name, service_of
from weft.agents.langgraph.checkpoints import AsyncpgSaver
from weft.agents.langgraph.mapping import Into, Mapped, MappingFault, Request
from weft.agents.mesh import Mesh
from weft.rpc.call import IDENTITY_KEY, TRACEPARENT_KEY, Call, Metadata, current_call, serve_as
from weft.v1 import options_pb2
from weft.v1.identity_pb2 import Identity

KEY: Final = "idempotency-key"

_LONGEST_KEY = 255
_CHECKPOINTER = "__pregel_checkpointer"  # where LangGraph keeps the saver of a run
_DURABILITY = "__pregel_durability"  # and how durable it is, where the caller says
_STORING = 10.0  # seconds a checkpoint may take
_LOOK_AGAIN = 0.002  # seconds, doubled each time

Node: TypeAlias = Callable[[Any, RunnableConfig, Runtime[Any]], Awaitable[Mapping[str, Any]]]
Caller: TypeAlias = Callable[[Runtime[Any]], Identity | None]


class NotStored(rpc.FailedPrecondition):
    """The checkpoint before this node is not stored, so its effect could come twice.

    Run the graph with durability "sync" or "async", and its subgraphs with its checkpointer.
    """

    reason = "CHECKPOINT_NOT_STORED"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Skill:
    path: str
    agent: str
    asked: type[Message]
    answered: type[Message]
    streams: bool
    repeatable: bool


def agent_node(
    mesh: Mesh,
    method: Callable[..., Any] | str,
    *,
    request: Request,
    into: Into,
    state: type | None = None,
    agent: str = "",
    timeout: timedelta | None = None,
    identity: Caller | None = None,
    pool: DescriptorPool | None = None,
) -> Node:
    """A node that calls a skill of an agent, for `add_node` of a graph.

    The call has the deadline, identity, conversation and trace of the call that is being served, where there is one. Its
    idempotency key is made of thread, checkpoint, node and task, so a graph that is resumed calls with the same key; no
    call that has an effect is made before the checkpoint is stored. Of a stream the last message is the response, and
    each is written to the graph's stream "custom".

    Args:
        mesh: the way to agents.
        method: of a generated Servicer class, such as TriageServiceServicer.Classify, or its name
            "package.Service/Method".
        request: field of the request -> key of the state, or a function of the state; or a function that makes the
            request. Paths reach into messages by dots. None in the state leaves a field unset.
        into: key of the state -> field of the response; or the key that gets all of it, as a document; or a function
            of the response that returns what changes.
        state: the class that describes the state; what is mapped must fit its types.
        agent: whom to call; empty: the agent whose contract it is.
        timeout: of the call, at most; None: as its contract says.
        identity: in whose name it calls, by the runtime of the graph; None: of the call being served, or the mesh's.
        pool: where methods are found by name; None: in what this process has imported.

    Raises:
        ContractError: there is no such method, or it takes a stream.
        MappingFault: the mapping does not fit; its text names every fault.
    """
    skill = _skill(method, pool)
    mapped = Mapped(
        request=request, into=into, asked=skill.asked, answered=skill.answered, state=state
    )
    if faults := list(mapped.faults()):
        raise MappingFault("\n".join((f"{skill.path.lstrip('/')} does not fit:", *faults)))
    seconds = None if timeout is None else timeout.total_seconds()

    async def node(state: Any, config: RunnableConfig, runtime: Runtime[Any]) -> Mapping[str, Any]:
        asked = mapped.ask(state)
        metadata = _traced(config)
        if (info := runtime.execution_info) is not None:
            metadata = (*metadata, (KEY, _key(info)))
            if info.thread_id is not None and not skill.repeatable:
                await _stored(config, info)
        channel = mesh.channel(agent or skill.agent)
        calling = _call(channel, skill, asked, metadata, seconds, runtime)
        caller = identity(runtime) if identity is not None else None
        if caller is not None:
            # In a task, and so in a context, of its own: the next node has another caller.
            named = _in_the_name_of(caller, skill.path, calling)
            return mapped.take(await asyncio.create_task(named))
        return mapped.take(await calling)

    node.__name__ = skill.path.rpartition("/")[2]
    return node


def _skill(method: Callable[..., Any] | str, pool: DescriptorPool | None) -> _Skill:
    path = f"/{method.lstrip('/')}" if isinstance(method, str) else _path(method)
    service, _, name = path.lstrip("/").partition("/")
    try:
        found = (pool or descriptor_pool.Default()).FindServiceByName(service)
        descriptor: MethodDescriptor = found.methods_by_name[name]
    except KeyError:
        raise ContractError(
            f"{path.lstrip('/')} is not known: import its generated module, or give the pool it is in"
        ) from None
    if descriptor.client_streaming:
        raise ContractError(f"{descriptor.full_name} takes a stream, and a node makes one request")
    # Options of another pool have extensions only when read again with this process's classes.
    options = MethodOptions.FromString(descriptor.GetOptions().SerializeToString())
    if options.Extensions[options_pb2.skill].delivery == options_pb2.DELIVERY_MESSAGE:
        raise ContractError(f"{descriptor.full_name} takes messages, and no calls")
    return _Skill(
        path=path,
        agent=agent_name(found),
        asked=message_factory.GetMessageClass(descriptor.input_type),
        answered=message_factory.GetMessageClass(descriptor.output_type),
        streams=descriptor.server_streaming,
        repeatable=options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
    )


def _path(method: Callable[..., Any]) -> str:
    owner, _, name = method.__qualname__.rpartition(".")
    if not owner.endswith("Servicer"):
        raise ContractError(
            f"{method.__qualname__} is no method of a generated ...Servicer class; "
            "name it as in TriageServiceServicer.Classify"
        )
    return f"/{service_of(method.__module__, owner.removesuffix('Servicer')).full_name}/{name}"


async def _call(
    channel: grpc.aio.Channel,
    skill: _Skill,
    asked: Message,
    metadata: Metadata,
    seconds: float | None,
    runtime: Runtime[Any],
) -> Message:
    """Makes a call; the response, the last one of a stream."""
    made = channel.unary_stream if skill.streams else channel.unary_unary
    begin: Any = made(skill.path, asked.__class__.SerializeToString, skill.answered.FromString)
    call = begin(asked, timeout=seconds, metadata=metadata)
    try:
        if not skill.streams:
            response: Message = await call
            return response
        last: Message | None = None
        async for message in call:
            last = message
            document = json_format.MessageToDict(message, preserving_proto_field_name=True)
            runtime.stream_writer(document)
    except grpc.aio.AioRpcError as failed:
        raise rpc.error_from_call(failed) from None
    finally:
        call.cancel()  # nothing where it has ended
    if last is None:
        raise rpc.Internal("The skill's stream ended without a message.", reason="EMPTY_STREAM")
    return last


async def _in_the_name_of(
    caller: Identity, path: str, calling: Coroutine[Any, Any, Message]
) -> Message:
    served = current_call()
    traced = ((TRACEPARENT_KEY, served.traceparent),) if served is not None else ()
    deadline = rpc.Deadline.current() or rpc.Deadline.after_seconds(math.inf)
    entry = (IDENTITY_KEY, caller.SerializeToString())
    serve_as(Call.at_door(path, traced, deadline, entry))
    return await calling


def _traced(config: RunnableConfig) -> Metadata:
    """The trace that the run was begun with, where no call is being served."""
    given = config["configurable"].get(TRACEPARENT_KEY)
    return ((TRACEPARENT_KEY, given),) if given and current_call() is None else ()


def _key(info: ExecutionInfo) -> str:
    """The same for each attempt of a task, on whichever worker. gRPC takes printable ASCII."""
    node = info.checkpoint_ns.rpartition("|")[2].partition(":")[0]
    parts = (info.thread_id or "", info.checkpoint_id, node, info.task_id)
    key = "/".join(quote(part, safe="-_.") for part in parts)
    if len(key) <= _LONGEST_KEY:
        return key
    return f"{hashlib.sha256(key.encode()).hexdigest()}/{info.task_id}"


async def _stored(config: RunnableConfig, info: ExecutionInfo) -> None:
    """Returns when the checkpoint of a task is stored: LangGraph begins the first tasks of a run before it is.

    Raises:
        NotStored: it is not, for a long time.
    """
    saver = config["configurable"].get(_CHECKPOINTER)
    if not isinstance(saver, BaseCheckpointSaver):
        return
    if config["configurable"].get(_DURABILITY) == "exit":
        raise NotStored
    ns = info.checkpoint_ns.rpartition("|")[0]
    named = {
        "thread_id": info.thread_id,
        "checkpoint_ns": ns,
        "checkpoint_id": info.checkpoint_id,
    }
    place: RunnableConfig = {"configurable": named}
    pause, until = _LOOK_AGAIN, time.monotonic() + _STORING
    while not await _has(saver, place):
        if time.monotonic() > until:
            raise NotStored
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.1)


async def _has(saver: BaseCheckpointSaver[Any], place: RunnableConfig) -> bool:
    if isinstance(saver, AsyncpgSaver):
        return await saver.has(place)
    return await saver.aget_tuple(place) is not None
