"""Runs agents: many in one process on one port, registered, observed, drained at stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from weft import rpc
from weft.agents.contract import Contract, contract_of
from weft.agents.member import Member
from weft.agents.mesh import Mesh
from weft.agents.messaging.consumer import Consumer, Handler
from weft.agents.messaging.dispatch import Dispatch, by_message, by_message_only
from weft.agents.messaging.skills import skill_of, stands_for_skill
from weft.agents.messaging.subscribed import Topic, subscribe, typed
from weft.agents.registration import Registration
from weft.telemetry import Telemetry
from weft.v1 import agent_pb2, lifecycle_pb2, options_pb2

if TYPE_CHECKING:
    from weft.agents.llm import Models
    from weft.agents.toolboxes import Toolboxes
    from weft.mtls import Credentials
    from weft.rpc.signing import Verifier

log = logging.getLogger("weft.agents")

# How long clients need to hear of DRAINING before the port may close: the registry's push takes 5 to 20 ms.
_PROPAGATION = timedelta(milliseconds=100)
_CONNECTING = 2.0  # seconds a start waits for its queues
_MOST_IN_HAND = 100  # messages of a queue: what one replica holds, the others do not get


class Host:
    """Serves agents on one port and keeps them registered.

        async with Host(registry="127.0.0.1:7070") as host:
            host.add(Greeter())
            await host.start()
            await host.wait()

    Skills that are delivered by message are consumed from the queue of their agent and handled like calls.

    Args:
        registry: address of the registry, or of several of its replicas, joined by commas.
        brokers: "host:port" of each broker, joined by commas; empty: no messages.
        listen: "host:port" to serve on; port 0 takes any.
        telemetry: where calls are counted and traced.
        zone: failure domain of this process.
        drain: how long running calls may take at stop.
        identity_trust: public keys of the gateways whose word for who calls is taken, joined by commas (see
            `weft.rpc.signing`): other identities are refused then, and skills keep their required scopes
            towards whoever calls. Empty: whatever identity a call brings is believed.
        models: what `mesh.models` is; None: there are none.
        toolboxes: what `mesh.toolbox` makes toolboxes by; None: it makes none.
        mtls: what it shows to callers, registry and brokers, and whom it believes; None: nothing is encrypted.

    Raises:
        ValueError: `identity_trust` is no list of public keys.
    """

    def __init__(
        self,
        *,
        registry: str,
        brokers: str = "",
        listen: str = "127.0.0.1:0",
        telemetry: Telemetry | None = None,
        zone: str = "",
        drain: timedelta = timedelta(seconds=10),
        identity_trust: str = "",
        models: Models | None = None,
        toolboxes: Toolboxes | None = None,
        mtls: Credentials | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._verifier = _verifier(identity_trust)
        self._mtls = mtls
        self._door = Path()  # folder of the socket by which messages reach the skills
        self.server = rpc.Server(listen, telemetry=telemetry, verifier=self._verifier, mtls=mtls)
        self.mesh = Mesh(
            registry,
            brokers=brokers,
            sender=_sender(),
            telemetry=telemetry,
            models=models,
            toolboxes=toolboxes,
            mtls=mtls,
            zone=zone,
        )
        self._brokers = brokers
        self._topics: list[Topic] = []
        self._own: rpc.Channel | None = None
        self._consuming: asyncio.Task[None] | None = None
        self._broken: asyncio.Future[None] | None = None
        self._directives: asyncio.Queue[lifecycle_pb2.Directive] = asyncio.Queue()
        self._obeying: asyncio.Task[None] | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._registry = registry
        self._zone = zone
        self._drain = drain
        self._labels = (
            {"metrics": telemetry.metrics_address}
            if telemetry and telemetry.metrics_address
            else {}
        )
        self._members: list[Member] = []
        self._registration: Registration | None = None
        self._holding: asyncio.Task[None] | None = None

    def add(
        self,
        servicer: object,
        *,
        agent: str | None = None,
        version: str = "0.0.0",
        labels: Mapping[str, str] | None = None,
        capabilities: tuple[str, ...] = (),
        max_concurrency: int | None = None,
        contract: Contract | None = None,
    ) -> str:
        """Adds an agent before `start` and returns its name.

        Args:
            servicer: an object of a class derived from a generated Servicer.
            agent: name to register under; by default the one its contract gives.
            version: semantic version of the agent's code.
            labels: free labels.
            capabilities: what the instance can do.
            max_concurrency: calls worked on at a time; by default what its contract says.
            contract: of a service with no generated code; `servicer` is then what its `add_to_server` takes.

        Raises:
            ContractError: the servicer derives from no generated class.
            ValueError: its service is served on this port already.
        """
        described = contract.descriptor if contract is not None else None
        contract = contract or contract_of(servicer)
        load = rpc.LoadMeter(max_concurrency or contract.max_concurrency)
        live = rpc.LiveSettings()
        name = agent or contract.agent
        only = {
            path: delivery
            for path, delivery in _skills_by_message(contract).items()
            if delivery == options_pb2.DELIVERY_MESSAGE
        }
        add = by_message_only(contract.add_to_server, only) if only else contract.add_to_server
        self.server.add(add, servicer, load=load, agent=name, service=described, live=live)
        service = agent_pb2.ServiceRef(name=contract.service, descriptor_digest=contract.digest)
        instance = agent_pb2.Instance(
            instance_id=uuid.uuid4().hex,
            agent=name,
            services=[service],
            version=version,
            zone=self._zone,
            labels={**self._labels, **(labels or {})},
            capabilities=capabilities,
            max_concurrency=load.limit,
        )
        self._members.append(
            Member(instance=instance, contract=contract, load=load, live=live, limit=load.limit)
        )
        return name

    @property
    def agents(self) -> frozenset[str]:
        """Names of the agents it serves."""
        return frozenset(member.instance.agent for member in self._members)

    def on(self, topic: str, handler: Callable[..., Any], *, name: str = "") -> None:
        """Handles events before `start`: a durable subscription of an agent of this host.

        Args:
            topic: words joined by dots; "*" stands for one, ">" at the end for one or more.
            handler: an async function of the event, typed by its first parameter, and the delivery if it takes one; or a
                skill of an agent of this host, as GreeterServiceServicer.Greet, which gets the event as its request.
            name: of the subscription behind the agent's; by default the handler's. It is kept when the process ends:
                a handler of the same name goes on with it.

        Raises:
            ValueError: there is no agent in whose name it could be, or no broker, or the name is taken.
            TypeError: the handler takes something else.
        """
        if not self._members:
            raise ValueError("add an agent first: the subscription is in its name")
        if not self._brokers:
            raise ValueError("this host has no broker, and topics need one")
        own = name or getattr(handler, "__name__", "handler").strip("_").replace("_", "-").lower()
        agent = self._members[0].instance.agent
        given: str | Callable[..., Any] = handler
        if stands_for_skill(handler):
            given = skill_of(handler).path
            agent = self._serving(given)
        full = f"{agent}.{own}"
        if any(one.name == full for one in self._topics):
            raise ValueError(f"there is a subscription {full} already; give this one a name")
        handle = given if isinstance(given, str) else typed(given, full, self._verifier)
        self._topics.append(Topic(pattern=topic, name=full, agent=agent, handle=handle))

    def _serving(self, path: str) -> str:
        service = path.split("/")[1]
        for member in self._members:
            if member.contract.service == service:
                return member.instance.agent
        raise ValueError(f"no agent of this host serves {service}")

    async def start(self, *, within: timedelta = timedelta(seconds=30)) -> None:
        """Serves, registers, and returns when callers can find the agents.

        Raises:
            AddressInUseError: the port is taken.
            TimeoutError: the registry was not reached within `within`; the host goes on trying.
            InvalidArgument: the registry rejects an instance.
            PermissionDenied: by its certificate, this process is not the agents it serves.
        """
        if self._mtls is not None:
            await asyncio.to_thread(self._mtls.serve, self.agents)
            self._door = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="weft-agents-"))
            self.server.add_own_door(f"unix:{self._door}/skills")
        await self.server.start()
        address = _reachable(self.server.address, rpc.Addresses(self._registry).current)
        for member in self._members:
            member.instance.address = address
        self._registration = Registration(
            self._registry,
            instances=[member.instance for member in self._members],
            descriptors={m.contract.digest: m.contract.descriptors for m in self._members},
            load=lambda: {m.instance.instance_id: m.told() for m in self._members},
            directed=self._directives.put_nowait,
            mtls=self._mtls,
        )
        self._broken = asyncio.get_running_loop().create_future()
        self._obeying = asyncio.create_task(self._fatal(self._obey()), name="directives")
        self._holding = asyncio.create_task(self._registration.run(), name="registration")
        registered = asyncio.create_task(self._registration.registered.wait())
        try:
            async with asyncio.timeout(within.total_seconds()):
                await asyncio.wait({registered, self._holding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            registered.cancel()
        if self._holding.done():
            await self._holding
        await self._consume()

    async def _consume(self) -> None:
        """Begins to handle messages."""
        given = [m.instance.agent for m in self._members if _skills_by_message(m.contract)]
        if given and not self._brokers:
            log.warning("there is no broker: skills get calls only", extra={"agents": given})
        if not self._brokers:
            return
        own = self.server.address if self._mtls is None else f"unix:{self._door}/skills"
        self._own = rpc.Channel(own, measured=False)
        self._consuming = asyncio.create_task(self._fatal(self._connect()), name="queues")
        try:
            async with asyncio.timeout(_CONNECTING):
                await asyncio.shield(self._consuming)
                if self._broken is not None and self._broken.done():
                    await self._broken
                for member in self._members:
                    for consumer in member.consumers:
                        await consumer.connected.wait()
        except TimeoutError:
            # Calls are served all the same, and messages as soon as a broker is there.
            log.warning("no broker answers", extra={"brokers": self._brokers})

    async def _connect(self) -> None:
        for member in self._members:  # of skills first: topics wait for a broker that answers
            await self._tend(member, [])
        for topic in self._topics:
            await subscribe(self._brokers, topic, mtls=self._mtls)
        for member in self._members:
            await self._tend(member, self._topics)

    async def _obey(self) -> None:
        """Does as operators say, for ever."""
        members = {member.instance.instance_id: member for member in self._members}
        async with asyncio.TaskGroup() as adapting:
            while True:
                directive = await self._directives.get()
                member = members.get(directive.instance_id)
                if member is None:
                    continue
                limit = member.load.limit
                problems = member.obey(directive, list(self.mesh.models))
                done = agent_pb2.Applied(version=directive.version, problems=problems)
                leaves = member.held or member.load.limit != limit
                # What an agent has in hand takes its time, and must not hold up what is wanted of others.
                adapting.create_task(self._adapt(member, done, leaves=leaves))

    async def _adapt(self, member: Member, done: agent_pb2.Applied, *, leaves: bool) -> None:
        """Leaves and joins queues as operators want it now, and says that it is done."""
        if member.consumers and leaves:
            async with member.tending:
                await self._leave_queues(member)
        if self._consuming is not None and self._consuming.done():
            await self._tend(member, self._topics)
        if done.version != member.wanted:
            return  # something else is wanted by now, and said when that is done
        member.instance.applied.CopyFrom(done)
        assert self._registration is not None
        self._registration.applied(member.instance.instance_id, done)

    async def _tend(self, member: Member, topics: Iterable[Topic]) -> None:
        """Begins those consumers of an agent that are missing, unless it is held back."""
        async with member.tending:
            if member.held or self._own is None:
                return
            running = {consumer.queue for consumer in member.consumers}
            agent = member.instance.agent
            skills = _skills_by_message(member.contract)
            if skills and agent not in running:
                await self._start(member, agent, self._dispatch(agent, skills), member.load.limit)
            for topic in topics:
                if topic.agent != agent or topic.name in running:
                    continue
                handle = topic.handle
                if isinstance(handle, str):
                    handle = self._dispatch(agent, [handle], only=handle, queue=topic.name)
                await self._start(member, topic.name, handle, _MOST_IN_HAND)

    def _dispatch(
        self, agent: str, skills: Iterable[str], *, only: str = "", queue: str = ""
    ) -> Dispatch:
        assert self._own is not None
        return Dispatch(
            self._own,
            agent=agent,
            skills=skills,
            publish=self.mesh.publish_message,
            only=only,
            queue=queue,
            verifier=self._verifier,
            telemetry=self._telemetry,
        )

    async def _start(self, member: Member, queue: str, handler: Handler, limit: int) -> None:
        consumer = Consumer(
            self._brokers,
            queue,
            handler,
            concurrency=min(limit, _MOST_IN_HAND),
            name=self.server.address,
            mtls=self._mtls,
        )
        await consumer.__aenter__()
        member.consumers.append(consumer)
        watching = asyncio.create_task(self._fatal(consumer.wait()), name=f"watch of {queue}")
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _fatal(self, work: Awaitable[None]) -> None:
        """Awaits what must not fail; if it does, so does `wait`."""
        try:
            await work
        except Exception as failed:
            assert self._broken is not None
            if self._broken.done():
                log.exception("a queue, or what operators want, failed")
            else:
                self._broken.set_exception(failed)
                self._broken.exception()  # asyncio would complain if nobody asked

    async def wait(self) -> None:
        """Returns when the host is stopped; raises what ended its registration, or one of its queues."""
        if self._holding is None or self._broken is None:
            return
        ends = {self._holding, self._broken}
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for ended in done:
            if not ended.cancelled():
                await ended

    async def stop(self) -> None:
        """Drains: tells callers to go elsewhere, lets running calls finish, leaves the registry."""
        if self._registration is not None and self._holding is not None:
            if self._registration.registered.is_set() and await self._registration.announce(
                agent_pb2.INSTANCE_STATE_DRAINING, timedelta(seconds=1)
            ):
                await asyncio.sleep(_PROPAGATION.total_seconds())
            await self._leave_all()
            await self.server.stop(self._drain)
            self._registration.leave()
            with contextlib.suppress(rpc.Error):
                await self._holding
            self._registration = None
        else:
            await self._leave_all()
            await self.server.stop(self._drain)
        await self.mesh.close()
        if self._door.name:
            await asyncio.to_thread(shutil.rmtree, self._door, ignore_errors=True)
            self._door = Path()

    async def _leave_all(self) -> None:
        for task in (self._consuming, self._obeying):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._consuming = self._obeying = None
        await asyncio.gather(*(self._leave_queues(member) for member in self._members))
        await asyncio.gather(*self._watching, return_exceptions=True)
        if self._own is not None:
            await self._own.close()
            self._own = None

    async def _leave_queues(self, member: Member) -> None:
        """Finishes what it has of its queues and takes nothing more; messages wait for others, or for `_tend`."""
        await asyncio.gather(*(consumer.drain(self._drain) for consumer in member.consumers))
        member.consumers.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()


def _skills_by_message(contract: Contract) -> Mapping[str, options_pb2.Delivery.ValueType]:
    return by_message(contract.descriptor)


def _verifier(trusted: str) -> Verifier | None:
    if not trusted:
        return None
    from weft.rpc.signing import Verifier  # cryptography takes its time, and few hosts need it

    return Verifier(trusted)


def _sender() -> str:
    return f"host:{socket.gethostname()}"[:200]


def _reachable(address: str, registry: str) -> str:
    """The address others can dial when the server listens on all interfaces: the one that faces the registry."""
    host, _, port = address.rpartition(":")
    if host.strip("[]") not in {"0.0.0.0", "::", ""}:  # noqa: S104 compared, not bound
        return f"{socket.gethostbyname(host)}:{port}" if not host.startswith("[") else address
    peer, _, peer_port = registry.rpartition(":")
    family = socket.AF_INET6 if peer.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((peer.strip("[]"), int(peer_port)))
        facing = probe.getsockname()[0]
    return f"[{facing}]:{port}" if family == socket.AF_INET6 else f"{facing}:{port}"
