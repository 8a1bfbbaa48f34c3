"""The Register stream: from the first message to the end of the lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn

from weft import rpc
from weft.registry import catalog, leases, validate
from weft.registry.errors import InstanceTaken
from weft.registry.index import Index
from weft.registry.lifecycle import Directives
from weft.registry.loads import Loads
from weft.registry.store import DescriptorSet, Registration
from weft.registry.streams import Streams
from weft.registry.writer import Writer
from weft.rpc.membership import Context
from weft.rpc.membership import Membership as Members
from weft.v1 import agent_pb2, registry_pb2

State = agent_pb2.InstanceState
Requests = AsyncIterator[registry_pb2.RegisterRequest]
Send = Callable[[registry_pb2.RegisterResponse], Awaitable[None]]
Response = registry_pb2.RegisterResponse

_SETS_TIMEOUT = 30.0  # seconds a process has to send the descriptor sets it was asked for


class OutOfOrder(rpc.FailedPrecondition):
    """The message may not come here."""

    reason = "MESSAGE_OUT_OF_ORDER"


class Registrar:
    """Serves Register streams."""

    def __init__(
        self,
        *,
        index: Index,
        sets: catalog.Catalog,
        writer: Writer,
        table: leases.Leases,
        loads: Loads,
        streams: Streams,
        members: Members | None = None,
    ) -> None:
        self._members = members
        self._index = index
        self._sets = sets
        self._writer = writer
        self._leases = table
        self._loads = loads
        self._streams = streams

    async def serve(self, requests: Requests, send: Send, context: Context | None = None) -> None:
        """Serves one stream until the process leaves, breaks off or is superseded.

        Args:
            requests: of the stream.
            send: to it.
            context: of the call; whose certificate it came with is asked where there is mTLS.
        """
        async with self._streams.open() as stream:
            registration = await self._first(requests)
            if registration is None:
                return
            former = None
            if self._members is not None and context is not None:
                former = self._former_agents(registration)
                _identify(registration, former, self._members, context)
            lease = self._leases.grant(stream)
            send = _in_turn(send)
            try:
                if await self._admit(lease, registration, former, requests, send):
                    async with _beside(Directives(self._index, registration.instances, send).run()):
                        await self._keep(lease, requests, send)
            finally:
                lease.holder = None  # from here on the ttl runs
                if not lease.instance_ids:  # taken over before it was seen to be held here
                    ids = [instance.instance_id for instance in registration.instances]
                    self._leases.abandon(lease, ids)

    async def _first(self, requests: Requests) -> registry_pb2.Registration | None:
        request = await anext(requests, None)
        if request is None:
            return None
        if request.WhichOneof("message") != "registration":
            _out_of_order(request, "the first message must be `registration`")
        validate.check(validate.registration(request.registration))
        return request.registration

    def _former_agents(self, registration: registry_pb2.Registration) -> dict[str, str]:
        """Agents that the instances are of by now, by id, as far as this replica knows."""
        known = [self._index.instance(each.instance_id) for each in registration.instances]
        return {each.instance_id: each.agent for each in known if each is not None}

    async def _admit(
        self,
        lease: leases.Lease,
        registration: registry_pb2.Registration,
        former: Mapping[str, str] | None,
        requests: Requests,
        send: Send,
    ) -> bool:
        """Takes the registration up to `registered`; False: the process left before."""
        refs = [ref for instance in registration.instances for ref in instance.services]
        wanted = {ref.descriptor_digest for ref in refs if ref.descriptor_digest not in self._sets}
        granted = registry_pb2.LeaseGranted(lease_id=lease.lease_id, wanted_digests=sorted(wanted))
        granted.ttl.FromTimedelta(self._leases.terms.ttl)
        granted.heartbeat_interval.FromTimedelta(self._leases.terms.heartbeat_interval)
        await send(Response(granted=granted))
        sets = await _collect(requests, wanted)
        if sets is None:
            return False
        for digest, received in sets.items():
            # Kept even if the registration fails: a set is true of itself. Stored with the first that succeeds.
            self._sets.add(digest, received.content, received.services)
        validate.check(self._undescribed(registration))
        if former is not None:
            now = self._former_agents(registration).items()
            if now - former.items() - _agents(registration):
                raise InstanceTaken  # before any stream is ended for it
        revision = await self._register(lease, list(registration.instances), former)
        await send(Response(registered=registry_pb2.Registered(revision=revision)))
        return True

    def _undescribed(self, registration: registry_pb2.Registration) -> validate.Violations:
        for i, instance in enumerate(registration.instances):
            for j, ref in enumerate(instance.services):
                if self._sets.service(ref) is None:
                    path = f"registration.instances[{i}].services[{j}].name"
                    yield path, "is not a service of its descriptor set"

    async def _register(
        self,
        lease: leases.Lease,
        instances: Sequence[agent_pb2.Instance],
        former: Mapping[str, str] | None,
    ) -> int:
        ids = [instance.instance_id for instance in instances]
        now = datetime.now(UTC)
        for instance in instances:
            known = self._index.instance(instance.instance_id)
            if known is None:
                instance.register_time.FromDatetime(now)
            else:
                instance.register_time.CopyFrom(known.register_time)
            instance.state = instance.state or State.INSTANCE_STATE_SERVING
        digests = {ref.descriptor_digest for instance in instances for ref in instance.services}
        self._leases.claim(lease, ids)
        try:
            await self._writer.register(
                Registration(
                    lease_id=lease.lease_id,
                    instances=instances,
                    agents=list(self._contracts(instances).values()),
                    descriptors=[DescriptorSet(d, self._sets.get(d) or b"") for d in digests],
                    moved=[i.instance_id for i in instances if self._moves(i)],
                    former=former,
                )
            )
        except BaseException:
            self._leases.abandon(lease, ids)
            raise
        return self._index.revision

    def _moves(self, instance: agent_pb2.Instance) -> bool:
        former = self._index.instance(instance.instance_id)
        return former is not None and former.address != instance.address

    def _contracts(self, instances: Sequence[agent_pb2.Instance]) -> Mapping[str, agent_pb2.Agent]:
        services: dict[str, dict[str, agent_pb2.ServiceRef]] = {}
        for instance in instances:
            services.setdefault(instance.agent, {}).update(
                {ref.name: ref for ref in instance.services}
            )
        return {
            agent: self._sets.contract(agent, refs.values()) for agent, refs in services.items()
        }

    async def _keep(self, lease: leases.Lease, requests: Requests, send: Send) -> None:
        async for request in requests:
            match request.WhichOneof("message"):
                case "report":
                    await send(self._report(lease, request.report))
                case "state_change":
                    await send(await self._change(lease, request.state_change))
                case "applied":
                    await self._applied(lease, request.applied)
                case "deregistration":
                    await self._leave(lease)
                    return
                case _:
                    _out_of_order(request, "the lease is granted and the instances are registered")

    def _report(self, lease: leases.Lease, report: registry_pb2.LoadReport) -> Response:
        validate.check(validate.report(report, lease.instance_ids))
        expires = self._leases.renew(lease)
        for instance_id, load in report.loads.items():
            self._loads.report(instance_id, load)
        response = Response()
        response.renewed.expire_time.FromDatetime(expires)
        return response

    async def _applied(self, lease: leases.Lease, done: registry_pb2.DirectiveApplied) -> None:
        validate.check(validate.applied(done, lease.instance_ids))
        with contextlib.suppress(rpc.Unavailable, rpc.DeadlineExceeded):
            await self._writer.applied(lease.lease_id, done.instance_id, done.applied)

    async def _change(self, lease: leases.Lease, change: registry_pb2.StateChange) -> Response:
        validate.check(validate.state_change(change, lease.instance_ids))
        self._leases.renew(lease)
        ids = sorted(change.instance_ids or lease.instance_ids)
        if change.state != State.INSTANCE_STATE_DRAINING:
            for instance_id in ids:
                before = self._index.storable(instance_id)
                if before is not None and before.state == State.INSTANCE_STATE_DRAINING:
                    raise rpc.FailedPrecondition(
                        f"{instance_id} is draining, and can only leave.", reason="DRAINING"
                    )
        await self._writer.announce(lease.lease_id, ids, change.state, change.reason)
        return Response(state_changed=registry_pb2.StateChanged(revision=self._index.revision))

    async def _leave(self, lease: leases.Lease) -> None:
        ids = self._leases.close(lease)
        await self._writer.remove(lease.lease_id, ids)


def _identify(
    registration: registry_pb2.Registration,
    former: Mapping[str, str],
    members: Members,
    context: Context,
) -> None:
    """Sees that a process registers the agents that it is, and says in the instances who it is.

    It must be those as well that its instances are of by now, by id in `former`: it takes their place.
    """
    who = members.who(context)
    for instance in registration.instances:
        members.check_agent(who, instance.agent)
        members.check_agent(who, former.get(instance.instance_id, instance.agent))
        instance.spiffe_id = str(who)


def _agents(registration: registry_pb2.Registration) -> set[tuple[str, str]]:
    """Instances and the agents they are of."""
    return {(each.instance_id, each.agent) for each in registration.instances}


def _in_turn(send: Send) -> Send:
    """Sends one message after the other, whoever has it to say: gRPC takes one at a time."""
    turn = asyncio.Lock()

    async def sent(response: Response) -> None:
        async with turn:
            await send(response)

    return sent


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs something beside a block. It fails with the stream, which the block hears of by itself."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _collect(requests: Requests, wanted: set[str]) -> Mapping[str, _Received] | None:
    """The descriptor sets asked for; None: the process left instead."""
    sets: dict[str, _Received] = {}
    try:
        async with asyncio.timeout(_SETS_TIMEOUT):
            while wanted - sets.keys():
                request = await anext(requests, None)
                if request is None or request.WhichOneof("message") == "deregistration":
                    return None
                if request.WhichOneof("message") != "descriptors":
                    _out_of_order(request, "descriptor sets are awaited")
                for digest, content in request.descriptors.sets.items():
                    sets[digest] = _Received(digest, content, wanted)
    except TimeoutError:
        raise rpc.DeadlineExceeded(
            f"The descriptor sets asked for did not come within {_SETS_TIMEOUT:.0f} s."
        ) from None
    return sets


class _Received:
    """A descriptor set from outside, checked."""

    __slots__ = ("content", "services")

    def __init__(self, digest: str, content: bytes, wanted: set[str]) -> None:
        path = f'descriptors.sets["{digest[:64]}"]'
        if digest not in wanted:
            raise rpc.InvalidArgument("was not asked for", field=path)
        if catalog.digest_of(content) != digest:
            raise rpc.InvalidArgument("does not have this SHA-256 digest", field=path)
        self.content = content
        try:
            self.services = catalog.read(content)
        except catalog.InvalidSetError as failed:
            raise rpc.InvalidArgument(str(failed), field=path) from None


def _out_of_order(request: registry_pb2.RegisterRequest, why: str) -> NoReturn:
    raise OutOfOrder(
        f"`{request.WhichOneof('message') or 'empty message'}` may not come here: {why}."
    )
