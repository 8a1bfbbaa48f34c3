"""Keeps the instances of a process registered: one lease, one stream, re-made whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

import grpc

from weft import rpc
from weft.v1 import agent_pb2, lifecycle_pb2, registry_pb2, registry_pb2_grpc

if TYPE_CHECKING:
    from weft.mtls import Credentials, SpiffeId
    from weft.v1.registry_pb2_grpc import RegistryServiceAsyncStub

log = logging.getLogger("weft.agents")

_FIRST_PAUSE = 0.1  # seconds, doubled up to the last
_LAST_PAUSE = 2.0
_GOODBYE = 1.0  # seconds the registry has to take a goodbye
_ANSWER = 5.0  # seconds the registry has for each answer while registering

# PERMISSION_DENIED: a certificate of somebody else.
_FINAL = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED}

_State: TypeAlias = "agent_pb2.InstanceState.ValueType"
Request = registry_pb2.RegisterRequest
Stream = grpc.aio.StreamStreamCall[registry_pb2.RegisterRequest, registry_pb2.RegisterResponse]


class Registration:
    """The lease of a process.

    Args:
        registry: address of the registry, or of several of its replicas, joined by commas. One of them has the lease; when
            it fails the next one takes it over, before anybody misses the instances.
        instances: what to register.
        descriptors: descriptor sets by digest, sent when the registry asks for them.
        load: tells the load of each instance, by id.
        directed: is told what operators want of an instance; answer it by `applied`. By default nobody is.
        mtls: what it shows to the registry; None: the connection is not encrypted.
    """

    def __init__(
        self,
        registry: str,
        *,
        instances: Sequence[agent_pb2.Instance],
        descriptors: Mapping[str, bytes],
        load: Callable[[], Mapping[str, agent_pb2.Load]],
        directed: Callable[[lifecycle_pb2.Directive], object] = lambda _: None,
        mtls: Credentials | None = None,
    ) -> None:
        self._mtls = mtls
        self._who: SpiffeId | None = None  # as it is registered
        self._registry = rpc.Addresses(registry)
        self._instances = list(instances)
        self._descriptors = descriptors
        self._load = load
        self._directed = directed
        self._sayings: asyncio.Queue[tuple[Request, asyncio.Future[None] | None]]
        self._sayings = asyncio.Queue()
        self._state: _State = agent_pb2.INSTANCE_STATE_SERVING
        self._leaving = asyncio.Event()
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Registers and stays registered until `leave`; for a task of its own."""
        pause, failures = _FIRST_PAUSE, 0
        # A registry lost while this process drains is not looked for: whoever is not registered gets no calls.
        while not self._leaving.is_set() and self._state != agent_pb2.INSTANCE_STATE_DRAINING:
            # By a channel of its own to one address: where a peer hangs, a channel to many would stay with it.
            async with rpc.Channel(self._registry.current, mtls=self._mtls) as channel:
                try:
                    await self._hold(registry_pb2_grpc.RegistryServiceStub(channel))
                except (
                    grpc.aio.AioRpcError,
                    asyncio.InvalidStateError,  # a write to a stream that has just ended
                    TimeoutError,
                    EOFError,
                ) as failed:
                    if isinstance(failed, grpc.aio.AioRpcError) and _is_final(failed):
                        raise rpc.error_from_call(failed) from failed
                    log.warning("registry lost, registering again", extra={"cause": _cause(failed)})
            if self.registered.is_set():
                pause, failures = _FIRST_PAUSE, 0
                self.registered.clear()
            elif (
                failures % len(self._registry) == 0
            ):  # all of them, before the next pause is longer
                pause = min(pause * 2, _LAST_PAUSE)
            failures += 1
            self._registry.advance()
            await self._pause(pause * random.uniform(0.5, 1.0))  # noqa: S311 jitter

    async def announce(self, state: _State, within: timedelta) -> bool:
        """Tells the registry a new state of all instances; whether it was taken in time."""
        self._state = state
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        change = registry_pb2.StateChange(state=state)
        self._sayings.put_nowait((Request(state_change=change), taken))
        try:
            async with asyncio.timeout(within.total_seconds()):
                await taken
        except TimeoutError:
            return False
        return True

    def applied(self, instance_id: str, applied: agent_pb2.Applied) -> None:
        """Tells the registry how far a directive is done. One that is lost with a stream is sent again on the next."""
        done = registry_pb2.DirectiveApplied(instance_id=instance_id, applied=applied)
        self._sayings.put_nowait((Request(applied=done), None))

    def leave(self) -> None:
        """Ends the lease; `run` then returns."""
        self._leaving.set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        except TimeoutError:
            return

    async def _hold(self, stub: RegistryServiceAsyncStub) -> None:
        stream: Stream = stub.Register()
        try:
            granted = await self._register(stream)
            self.registered.set()
            log.info(
                "registered",
                extra={"agents": [i.agent for i in self._instances], "lease": granted.lease_id},
            )
            await self._renew(stream, granted)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # gRPC's word for a write to a stream that a read has given up, and not for this task.
            raise EOFError("the registry was silent amid a report") from None
        finally:
            stream.cancel()

    def _check_certificate(self) -> None:
        # What the registry tells callers of this process must be what it shows them.
        if self._mtls is not None and self._mtls.who != self._who:
            raise EOFError(f"this process is {self._mtls.who} by its certificate now")

    async def _register(self, stream: Stream) -> registry_pb2.LeaseGranted:
        self._who = self._mtls.who if self._mtls is not None else None
        for instance in self._instances:
            instance.state = self._state
        registration = registry_pb2.Registration(instances=self._instances)
        await stream.write(registry_pb2.RegisterRequest(registration=registration))
        granted = (await _answer(stream, "granted")).granted
        for digest in granted.wanted_digests:  # one by one: a message holds no more than a few
            sets = registry_pb2.DescriptorSets(sets={digest: self._descriptors[digest]})
            await stream.write(registry_pb2.RegisterRequest(descriptors=sets))
        await _answer(stream, "registered")
        return granted

    async def _renew(self, stream: Stream, granted: registry_pb2.LeaseGranted) -> None:
        """Reports and announces until `leave`; raises when the registry goes silent for the lease's ttl."""
        interval = granted.heartbeat_interval.ToTimedelta().total_seconds()
        ttl = granted.ttl.ToTimedelta().total_seconds()
        waiting: list[asyncio.Future[None]] = []
        leaving = asyncio.create_task(self._leaving.wait())
        reading = asyncio.create_task(self._read(stream, ttl, waiting))
        saying = asyncio.create_task(self._sayings.get())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {leaving, reading, saying},
                    timeout=interval,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if reading in done:
                    await reading
                if saying in done:
                    said, taken = saying.result()
                    saying = asyncio.create_task(self._sayings.get())
                    if taken is not None:
                        waiting.append(taken)
                    await stream.write(said)
                elif leaving in done:
                    goodbye = registry_pb2.Deregistration()
                    await stream.write(registry_pb2.RegisterRequest(deregistration=goodbye))
                    await stream.done_writing()
                    # The registry ends the stream when it has taken the goodbye; ended from here, by cancelling
                    # the read, the stream would be reset, and the reset may overtake the goodbye.
                    await asyncio.wait({reading}, timeout=_GOODBYE)
                    return
                else:
                    self._check_certificate()
                    report = registry_pb2.LoadReport(loads=self._load())
                    await stream.write(registry_pb2.RegisterRequest(report=report))
        finally:
            for task in (leaving, reading, saying):
                task.cancel()
            await asyncio.gather(leaving, reading, saying, return_exceptions=True)

    async def _read(self, stream: Stream, ttl: float, waiting: list[asyncio.Future[None]]) -> None:
        while True:
            async with asyncio.timeout(ttl):
                answer = await _read_one(stream)
            if answer.HasField("directive"):
                self._directed(answer.directive)
            if answer.HasField("state_changed") and waiting:
                taken = waiting.pop(0)
                if not taken.done():
                    taken.set_result(None)


async def _read_one(stream: Stream) -> registry_pb2.RegisterResponse:
    answer = await stream.read()
    if isinstance(answer, registry_pb2.RegisterResponse):
        return answer
    raise EOFError("the registry ended the stream")


async def _answer(stream: Stream, kind: str) -> registry_pb2.RegisterResponse:
    async with asyncio.timeout(_ANSWER):
        answer = await _read_one(stream)
    if answer.WhichOneof("message") != kind:
        raise EOFError(f"the registry answered {answer.WhichOneof('message')}, expected {kind}")
    return answer


def _is_final(failed: grpc.aio.AioRpcError) -> bool:
    # What the registry rejects now it will reject again.
    return failed.code() in _FINAL


def _cause(failed: Exception) -> str:
    if isinstance(failed, grpc.aio.AioRpcError):
        return f"{failed.code().name}: {failed.details()}"
    return str(failed) or type(failed).__name__
