"""weft.v1.LifecycleService."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc

from weft import rpc
from weft.registry import validate
from weft.registry.catalog import Catalog
from weft.registry.errors import NeverRegistered
from weft.registry.follower import Follower
from weft.registry.index import Index, State
from weft.registry.lifecycle import changes
from weft.registry.store import Store
from weft.registry.traffic import rules
from weft.rpc import paging
from weft.rpc.membership import Membership
from weft.v1 import lifecycle_pb2 as pb
from weft.v1 import lifecycle_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("weft.registry")

_PAGE, _MAX_PAGE = 100, 1_000
_NEWEST = (1 << 63) - 1


class InstanceNotRegistered(rpc.NotFound):
    """The agent has no instance of this id now. `weft agents control AGENT` lists them."""

    reason = "INSTANCE_UNKNOWN"


class LifecycleService(lifecycle_pb2_grpc.LifecycleServiceServicer):
    """The servicer.

    Args:
        store: where controls are.
        index: follows them.
        sets: knows the methods of agents.
        follower: tells when a change is seen here.
        patience: how long that may take.
        members: tells operators from agents and parts; None: there is no mTLS, and whoever calls may do all.
    """

    def __init__(
        self,
        *,
        store: Store,
        index: Index,
        sets: Catalog,
        follower: Follower,
        patience: timedelta,
        members: Membership | None = None,
    ) -> None:
        self._members = members
        self._store = store
        self._index = index
        self._sets = sets
        self._follower = follower
        self._patience = patience.total_seconds()

    async def PauseAgent(
        self, request: pb.PauseAgentRequest, context: Context
    ) -> pb.PauseAgentResponse:
        """See lifecycle.proto."""
        self._check(context)
        control = await self._hold("pause", request, State.INSTANCE_STATE_PAUSED, context)
        return pb.PauseAgentResponse(control=control)

    async def DrainAgent(
        self, request: pb.DrainAgentRequest, context: Context
    ) -> pb.DrainAgentResponse:
        """See lifecycle.proto."""
        self._check(context)
        control = await self._hold("drain", request, State.INSTANCE_STATE_DRAINING, context)
        return pb.DrainAgentResponse(control=control)

    async def ResumeAgent(
        self, request: pb.ResumeAgentRequest, context: Context
    ) -> pb.ResumeAgentResponse:
        """See lifecycle.proto."""
        self._check(context)
        known = self._known(request.agent, request.instance_ids, request.reason)
        others = [each for each in known if each not in request.instance_ids]
        event = pb.ControlEvent(
            action="resume", instance_ids=request.instance_ids, reason=request.reason
        )

        def resume(control: pb.Control) -> bool:
            return changes.resume(control, request.instance_ids, others)

        return pb.ResumeAgentResponse(
            control=await self._change(request.agent, resume, event, context)
        )

    async def SetAgent(self, request: pb.SetAgentRequest, context: Context) -> pb.SetAgentResponse:
        """See lifecycle.proto."""
        self._check(context)
        self._known(request.agent, (), request.reason)
        mask = request.update_paths
        validate.check(changes.settings(request.settings, self._methods(request.agent)))
        validate.check(changes.paths(mask))
        if not mask and not request.settings.ListFields():
            raise rpc.InvalidArgument("sets nothing: name what to set", field="settings")
        event = pb.ControlEvent(
            action="set",
            settings=request.settings,
            update_paths=request.update_paths,
            reason=request.reason,
        )

        def put(control: pb.Control) -> bool:
            return changes.put(control, request.settings, mask)

        return pb.SetAgentResponse(control=await self._change(request.agent, put, event, context))

    async def SetTraffic(
        self, request: pb.SetTrafficRequest, context: Context
    ) -> pb.SetTrafficResponse:
        """See lifecycle.proto."""
        self._check(context)
        self._known(request.agent, (), request.reason)
        mask = request.update_paths
        validate.check(rules.given(request.traffic))
        validate.check(rules.paths(mask))
        if not mask and not request.traffic.ListFields():
            raise rpc.InvalidArgument("sets nothing: name what to set", field="traffic")
        event = pb.ControlEvent(
            action="traffic",
            traffic=request.traffic,
            update_paths=request.update_paths,
            reason=request.reason,
        )

        def put(control: pb.Control) -> bool:
            return rules.put(control, request.traffic, mask)

        return pb.SetTrafficResponse(control=await self._change(request.agent, put, event, context))

    async def GetControl(
        self, request: pb.GetControlRequest, context: Context
    ) -> pb.GetControlResponse:
        """See lifecycle.proto."""
        self._check(context)
        self._known(request.agent, (), "")
        return pb.GetControlResponse(control=self._control(request.agent))

    async def ListControlEvents(
        self, request: pb.ListControlEventsRequest, context: Context
    ) -> pb.ListControlEventsResponse:
        """See lifecycle.proto."""
        self._check(context)
        size = paging.page_size(request.page_size, default=_PAGE, most=_MAX_PAGE)
        if request.agent:
            self._known(request.agent, (), "")
        listed = f"control events {request.agent}"
        behind = paging.page_begin(request.page_token, made_for=listed, like=(0,))
        before = _NEWEST if behind is None else int(behind[0])
        found = await self._store.control_events(request.agent, before, size + 1)
        response = pb.ListControlEventsResponse(events=[event for _, event in found[:size]])
        if len(found) > size:
            response.next_page_token = paging.page_token((found[size - 1][0],), made_for=listed)
        return response

    def _check(self, context: Context) -> None:
        if self._members is not None:
            self._members.check_operator(context)

    async def _hold(
        self,
        action: str,
        request: pb.PauseAgentRequest | pb.DrainAgentRequest,
        state: State.ValueType,
        context: Context,
    ) -> pb.Control:
        self._known(request.agent, request.instance_ids, request.reason)
        held = pb.Hold(state=state, reason=request.reason)
        event = pb.ControlEvent(
            action=action, instance_ids=request.instance_ids, reason=request.reason
        )

        def hold(control: pb.Control) -> bool:
            return changes.hold(control, request.instance_ids, held)

        return await self._change(request.agent, hold, event, context)

    async def _change(
        self,
        agent: str,
        change: Callable[[pb.Control], bool],
        event: pb.ControlEvent,
        context: Context,
    ) -> pb.Control:
        call = rpc.current_call()
        event.agent = agent
        event.peer = context.peer()
        event.create_time.GetCurrentTime()
        if call is not None and call.identity is not None:
            event.identity.CopyFrom(call.identity)
            event.identity.ClearField(
                "signature"
            )  # of no use afterwards, and none of anybody's business
        known = self._ids(agent)

        def changed(control: pb.Control) -> pb.ControlEvent | None:
            if not change(control):
                return None
            changes.prune(control, known)
            return event

        revision = await self._store.change_control(agent, changed)
        await self._follower.reached(revision, self._patience)
        if event.version:
            log.info(
                "an operator changed an agent",
                extra={
                    "agent": agent,
                    "action": event.action,
                    "instances": list(event.instance_ids),
                    "by": event.identity.subject,
                    "reason": event.reason,
                },
            )
        return self._control(agent)

    def _control(self, agent: str) -> pb.Control:
        control = pb.Control(agent=agent)
        control.MergeFrom(self._index.control(agent) or control)
        view = self._index.agent(agent)
        for instance in () if view is None else view.instances:
            control.instances.add(
                instance_id=instance.instance_id, state=instance.state, applied=instance.applied
            )
        return control

    def _known(self, agent: str, instance_ids: Sequence[str], reason: str) -> list[str]:
        """Ids of the instances of an agent.

        Raises:
            rpc.Error: there is no such agent or instance, or the request has faults.
        """
        validate.check(changes.request(instance_ids, reason))
        if not agent:
            raise rpc.InvalidArgument("names the agent and must not be empty", field="agent")
        if agent not in self._index:
            raise NeverRegistered("agent", agent)
        known = self._ids(agent)
        for instance_id in instance_ids:
            if instance_id not in known:
                raise InstanceNotRegistered(metadata={"agent": agent, "instance": instance_id})
        return known

    def _ids(self, agent: str) -> list[str]:
        view = self._index.agent(agent)
        return [] if view is None else [each.instance_id for each in view.instances]

    def _methods(self, agent: str) -> set[str]:
        view = self._index.agent(agent)
        return {
            method.path.rpartition("/")[2]
            for ref in (() if view is None else view.services)
            if (service := self._sets.service(ref)) is not None
            for method in service.methods
        }
