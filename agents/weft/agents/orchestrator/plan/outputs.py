"""What the nodes of a workflow give: the types that expressions of other nodes see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import Descriptor

from weft.agents.orchestrator.plan.check_calls import response_type
from weft.agents.orchestrator.plan.expressions import Expressions, Place
from weft.agents.orchestrator.plan.faults import Faults
from weft.agents.orchestrator.plan.types import list_of
from weft.agents.orchestrator.plan.world import StoredWorkflow, World
from weft.v1 import workflow_pb2
from weft.v1.workflow_pb2 import FaultKind, Node

_TIMESTAMP: Final = "google.protobuf.Timestamp"
_RESULTS: Final[dict[str, Descriptor]] = {
    "debate": workflow_pb2.DebateResult.DESCRIPTOR,
    "panel": workflow_pb2.PanelResult.DESCRIPTOR,
    "verification": workflow_pb2.VerificationResult.DESCRIPTOR,
    "supervision": workflow_pb2.SupervisionResult.DESCRIPTOR,
    "peer_review": workflow_pb2.PeerReviewResult.DESCRIPTOR,
}


@dataclass(slots=True)
class Typed:
    """A node with its place in the workflow, and the type of what it gives; None: that is not known, which is a fault."""

    place: int
    node: Node
    output_type: str | None

    @property
    def asks(self) -> bool:
        """Whether it is an approval."""
        return self.node.WhichOneof("kind") == "approval"


class Outputs:
    """Finds the types of what nodes give.

    Args:
        world: what there is.
        own: name of the workflow.
        faults: where faults go.

    Attributes:
        children: the workflows that nodes run, by id of node.
    """

    def __init__(self, world: World, own: str, faults: Faults) -> None:
        self.children: dict[str, StoredWorkflow] = {}
        self._world = world
        self._own = own
        self._faults = faults

    def of(self, nodes: Iterable[tuple[int, Node]], input_type: str | None) -> list[Typed]:
        """The nodes of a workflow, by their places, with what they give."""
        typed = [Typed(place, node, self._type(place, node)) for place, node in nodes]
        self._settle_approvals(typed, input_type)
        return typed

    def _type(self, place: int, node: Node) -> str | None:  # noqa: PLR0911  a case for each kind
        here = f"nodes[{place}]"
        kind = node.WhichOneof("kind")
        match kind:
            case "call":
                return self._there(response_type(node.call, self._world))
            case "for_each":
                each = (
                    response_type(node.for_each.calls[0], self._world)
                    if node.for_each.calls
                    else None
                )
                return None if each is None else list_of(each)
            case "compute":
                return self.known_type(node.compute.type, f"{here}.compute.type")
            case "wait":
                return self.known_type(node.wait.type, f"{here}.wait.type")
            case "timer":
                return _TIMESTAMP
            case "workflow":
                return self._child_type(node, f"{here}.workflow")
            case None | "approval":
                return None
            case _:
                return _RESULTS[kind].full_name

    def _there(self, name: str | None) -> str | None:
        return name if name and self._world.types.find(name) else None

    def known_type(self, name: str, place: str) -> str | None:
        """The name of a type of messages; None: there is none of that name, which is a fault."""
        if not name:
            self._faults.add(FaultKind.FAULT_KIND_MALFORMED, place, "is empty")
            return None
        if self._world.types.find(name) is None:
            words = f"there is no message type {name!r}"
            self._faults.add(FaultKind.FAULT_KIND_UNKNOWN_TYPE, place, words)
            return None
        return name

    def _child_type(self, node: Node, place: str) -> str | None:
        wanted, own = node.workflow, self._own
        here = f"{place}.name"
        if wanted.version < 0:
            words = "is less than 0"
            self._faults.add(FaultKind.FAULT_KIND_OUT_OF_RANGE, f"{place}.version", words)
        if wanted.name == own:
            words = "a workflow cannot contain itself"
            self._faults.add(FaultKind.FAULT_KIND_RECURSIVE_WORKFLOW, here, words)
            return None
        found = self._world.workflow(wanted.name, max(wanted.version, 0))
        if found is None:
            words = f"there is no workflow {wanted.name!r}"
            if wanted.version > 0 and self._world.workflow(wanted.name, 0) is not None:
                here, words = f"{place}.version", f"{wanted.name} has no version {wanted.version}"
            self._faults.add(FaultKind.FAULT_KIND_UNKNOWN_WORKFLOW, here, words)
            return None
        if own in found.contains:
            words = f"{wanted.name} contains {own}"
            self._faults.add(FaultKind.FAULT_KIND_RECURSIVE_WORKFLOW, here, words)
        self.children[node.id] = found
        self.known_type(found.input_type, here)
        return self.known_type(found.output_type, here)

    def _settle_approvals(self, typed: list[Typed], input_type: str | None) -> None:
        """Approvals give what they show, which may be what other approvals gave."""
        waiting = [each for each in typed if each.asks]
        everything = frozenset(each.node.id for each in typed)
        settled = True
        while waiting and settled:
            later = {each.node.id for each in waiting}
            types = {each.node.id: each.output_type for each in typed if each.node.id not in later}
            trial = Expressions(self._world.types, input_type, types, frozenset(), Faults())
            for each in waiting:
                shown = trial.any_message(
                    each.node.approval.show, Place(path="", earlier=everything)
                )
                each.output_type = shown[1] if shown else None
            settled = any(each.output_type for each in waiting)
            waiting = [each for each in waiting if each.output_type is None]
