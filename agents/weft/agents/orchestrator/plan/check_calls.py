"""Whether the skills that a workflow calls are there and can be steps."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from weft.agents.orchestrator.plan.expressions import Expressions, Place
from weft.agents.orchestrator.plan.faults import Faults
from weft.agents.orchestrator.plan.model import CallAction, RetryPlan
from weft.agents.orchestrator.plan.world import Agent, Method, World
from weft.v1.workflow_pb2 import Call, FaultKind, Node

_METHOD: Final = re.compile(r"[A-Za-z_][\w.]*/[A-Za-z_]\w*")
_RETRIED: Final = frozenset(
    {
        "UNAVAILABLE",
        "ABORTED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "UNKNOWN",
    }
)
_ATTEMPTS: Final = 3  # of what may be done twice
_FIRST_PAUSE: Final = timedelta(seconds=1)
_MAX_PAUSE: Final = timedelta(seconds=60)


def find_method(call: Call, world: World, place: str, faults: Faults) -> tuple[Method | None, str]:
    """The method that a call names, and the agent where that is settled; None where that is a fault.

    Where the agent is not known, but others serve the method, its types are known all the same.
    """
    path = f"/{call.method}"
    if not _METHOD.fullmatch(call.method):
        words = "is not written as package.Service/Method"
        faults.add(FaultKind.FAULT_KIND_MALFORMED, f"{place}.method", words)
        return None, ""
    serving = [agent for agent in world.agents.values() if path in agent.methods]
    target = call.WhichOneof("target")
    if target == "agent":
        _check_agent(call, world, path, place, faults)
        agents = [agent for agent in serving if agent.name == call.agent] or serving
    elif not serving:
        words = f"no agent serves {call.method}"
        faults.add(FaultKind.FAULT_KIND_UNKNOWN_METHOD, f"{place}.method", words)
        return None, ""
    elif target == "capability":
        agents = _capable(call, path, serving, place, faults) or serving
    else:
        agents = serving
        if len(serving) > 1:
            names = ", ".join(agent.name for agent in serving[:5])
            words = f"has to be said: {names} serve {call.method}"
            faults.add(FaultKind.FAULT_KIND_MALFORMED, f"{place}.agent", words)
    if not agents:
        return None, ""
    return agents[0].methods[path], "" if target == "capability" else agents[0].name


def response_type(call: Call, world: World) -> str | None:
    """What a call answers with, wherever its method is served; None: that is not known."""
    method, _ = find_method(call, world, "", Faults())
    return None if method is None else method.output_type


def _check_agent(call: Call, world: World, path: str, place: str, faults: Faults) -> None:
    agent = world.agents.get(call.agent)
    if agent is None:
        words = f"there is no agent {call.agent!r}"
        faults.add(FaultKind.FAULT_KIND_UNKNOWN_AGENT, f"{place}.agent", words)
    elif path not in agent.methods:
        words = f"{call.agent} does not serve {call.method}"
        faults.add(FaultKind.FAULT_KIND_UNKNOWN_METHOD, f"{place}.method", words)


def _capable(
    call: Call, path: str, serving: list[Agent], place: str, faults: Faults
) -> list[Agent]:
    wanted = call.capability
    if not wanted.tags and not wanted.labels:
        words = "names neither tags nor labels"
        faults.add(FaultKind.FAULT_KIND_MALFORMED, f"{place}.capability", words)
        return []
    found = [agent for agent in serving if agent.good_at(path, wanted.tags, wanted.labels)]
    if not found:
        words = f"no agent that serves {call.method} has all of these tags and labels"
        faults.add(FaultKind.FAULT_KIND_UNKNOWN_CAPABILITY, f"{place}.capability", words)
    return found


class Calls:
    """Compiles the calls of a workflow.

    Args:
        world: what is there.
        expressions: those of the workflow.
        scopes: of whoever submits it; None: all.
        faults: where faults go.
    """

    def __init__(
        self,
        world: World,
        expressions: Expressions,
        scopes: Collection[str] | None,
        faults: Faults,
    ) -> None:
        self._world = world
        self._expressions = expressions
        self._scopes = scopes
        self._faults = faults

    def response_type(self, call: Call) -> str | None:
        """What a call answers with; None: that is not known."""
        return response_type(call, self._world)

    def compile(self, call: Call, node: Node | None, place: Place) -> CallAction | None:
        """A call of a node, whose timeout and retries hold for it; None: as the skill says.

        Returns:
            None where something is wrong.
        """
        before = len(self._faults)
        method, agent = find_method(call, self._world, place.path, self._faults)
        if method is not None:
            self._check_method(method, place)
        missing = "says no request; an empty one is `fields: {}`"
        name = method.input_type if method else None
        request = self._expressions.given(call, name, place, missing)
        if method is None or request is None or len(self._faults) > before:
            return None
        own = node.timeout.ToTimedelta() if node and node.HasField("timeout") else None
        return CallAction(
            agent=agent,
            tags=tuple(call.capability.tags),
            labels=dict(call.capability.labels),
            path=method.path,
            request=request,
            response_type=method.output_type,
            streams=method.server_streaming,
            timeout=own or method.timeout,
            retry=retry_plan(node, repeatable=method.repeatable),
            effects=method.effects,
        )

    def _check_method(self, method: Method, place: Place) -> None:
        here = f"{place.path}.method"
        if method.client_streaming:
            words = "streams its requests, and cannot be a step"
            self._faults.add(FaultKind.FAULT_KIND_UNSUITABLE_METHOD, here, words)
        if method.messages_only:
            words = "takes durable messages only, and cannot be a step"
            self._faults.add(FaultKind.FAULT_KIND_UNSUITABLE_METHOD, here, words)
        if self._scopes is None:
            return
        missing = [scope for scope in method.scopes if scope not in self._scopes]
        if missing:
            words = f"needs {', '.join(missing)}, which whoever submits this does not have"
            self._faults.add(FaultKind.FAULT_KIND_MISSING_SCOPE, here, words)


def retry_plan(node: Node | None, *, repeatable: bool) -> RetryPlan:
    """When a call is tried again."""
    retry = node.retry if node is not None and node.HasField("retry") else None
    attempts = _ATTEMPTS if repeatable else 1
    if retry is None:
        return RetryPlan(
            attempts=attempts, first_pause=_FIRST_PAUSE, max_pause=_MAX_PAUSE, codes=_RETRIED
        )
    own_first, own_most = retry.HasField("first_pause"), retry.HasField("max_pause")
    return RetryPlan(
        attempts=retry.attempts or attempts,
        first_pause=retry.first_pause.ToTimedelta() if own_first else _FIRST_PAUSE,
        max_pause=retry.max_pause.ToTimedelta() if own_most else _MAX_PAUSE,
        codes=frozenset(retry.codes) or _RETRIED,
    )
