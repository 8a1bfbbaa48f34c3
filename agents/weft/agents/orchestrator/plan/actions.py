"""What the nodes of a workflow do, compiled: the actions that a plan is made of."""

from __future__ import annotations

from collections.abc import Mapping

from weft.agents.orchestrator.patterns import Composites
from weft.agents.orchestrator.plan.check_calls import Calls
from weft.agents.orchestrator.plan.check_patterns import Patterns
from weft.agents.orchestrator.plan.expressions import Expressions, Place
from weft.agents.orchestrator.plan.faults import Faults
from weft.agents.orchestrator.plan.model import (
    Action,
    ApprovalAction,
    CompositeAction,
    ComputeAction,
    RunAction,
    TimerAction,
    WaitAction,
)
from weft.agents.orchestrator.plan.world import StoredWorkflow
from weft.v1.workflow_pb2 import Node


class Actions:
    """Compiles what nodes do.

    Args:
        expressions: those of the workflow.
        calls: the calls of the workflow.
        composites: those of the nodes that are made of parts.
        children: the workflows that nodes run, by id of node.
        faults: where faults go.
    """

    def __init__(
        self,
        expressions: Expressions,
        calls: Calls,
        composites: Composites,
        children: Mapping[str, StoredWorkflow],
        faults: Faults,
    ) -> None:
        self._expressions = expressions
        self._calls = calls
        self._patterns = Patterns(expressions, calls, faults)
        self._composites = composites
        self._children = children
        self._faults = faults

    def compile(self, node: Node, place: Place) -> Action | None:  # noqa: PLR0911  a case for each kind
        """What a node does; `place` is the node's. None where something is wrong."""
        kind = node.WhichOneof("kind")
        match kind:
            case None:
                return None
            case "call":
                return self._calls.compile(node.call, node, place.at("call"))
            case "compute":
                return self._compute(node, place.at("compute"))
            case "approval":
                return self._approval(node, place.at("approval"))
            case "wait":
                wait = node.wait
                timeout = wait.timeout.ToTimedelta() if wait.HasField("timeout") else None
                return WaitAction(name=wait.name, type=wait.type, timeout=timeout)
            case "timer":
                return self._timer(node, place.at("timer"))
            case "workflow":
                return self._child(node, place.at("workflow"))
            case _:
                return self._composite(node, place)

    def _composite(self, node: Node, place: Place) -> Action | None:
        plan = self._patterns.compile(node, place)
        if plan is None or len(self._faults):
            return None
        composite = self._composites.get(type(plan))
        if composite is None:
            raise NotImplementedError(f"there is no composite for {type(plan).__name__}")
        return CompositeAction(composite=composite(plan))

    def _compute(self, node: Node, place: Place) -> Action | None:
        compute = node.compute
        name = compute.type if self._expressions.types.find(compute.type) else None
        message = self._expressions.given(compute, name, place, "says no value")
        return None if message is None else ComputeAction(message=message)

    def _approval(self, node: Node, place: Place) -> Action | None:
        gate = node.approval
        title = self._expressions.string(gate.title, place.at("title"))
        shown = self._expressions.any_message(gate.show, place.at("show"))
        if title is None or shown is None:
            return None
        return ApprovalAction(
            title=title,
            show=shown[0],
            scope=gate.scope,
            own=gate.own,
            quorum=gate.quorum or 1,
            editable=gate.editable,
            expires=gate.expires.ToTimedelta() if gate.HasField("expires") else None,
            webhook_url=gate.webhook_url,
        )

    def _timer(self, node: Node, place: Place) -> Action | None:
        match node.timer.WhichOneof("until"):
            case "pause":
                return TimerAction(pause=node.timer.pause.ToTimedelta(), at=None)
            case "at":
                at = self._expressions.time(node.timer.at, place.at("at"))
                return None if at is None else TimerAction(pause=None, at=at)
            case _:
                return None

    def _child(self, node: Node, place: Place) -> Action | None:
        found = self._children.get(node.id)
        name = found.input_type if found else None
        given = self._expressions.given(node.workflow, name, place, "says no input")
        if found is None or given is None:
            return None
        return RunAction(workflow=found.name, version=found.version, input=given)
