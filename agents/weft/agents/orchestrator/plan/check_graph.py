"""Whether the ways of a workflow lead somewhere, and end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from weft.agents.orchestrator.plan.faults import Faults
from weft.agents.orchestrator.plan.graph import Graph, Way, analyse
from weft.agents.orchestrator.plan.model import EdgeKind
from weft.v1.workflow_pb2 import Edge, FaultKind, Node


class Shape:
    """Nodes and ways of a workflow that are what they should be; the others are faults already.

    Attributes:
        nodes: those with an id of their own, with their places in the workflow.
        edges: ways between those, with their places.
        graph: how these lie, by their places here.
        forward: how many ways lead to each node that do not lead back.
        ids: of the nodes.
    """

    def __init__(self, nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
        self.nodes: list[tuple[int, Node]] = []
        numbers: dict[str, int] = {}
        for place, node in enumerate(nodes):
            if node.id not in numbers:
                numbers[node.id] = len(self.nodes)
                self.nodes.append((place, node))
        self.numbers: Mapping[str, int] = numbers
        self.edges: list[tuple[int, Edge]] = [
            (place, edge)
            for place, edge in enumerate(edges)
            if getattr(edge, "from") in numbers and edge.to in numbers
        ]
        ways = [Way(numbers[getattr(edge, "from")], numbers[edge.to]) for _, edge in self.edges]
        waits_for_all = 0
        for number, (_, node) in enumerate(self.nodes):
            waits_for_all |= (join_kind(node) == "all") << number
        self.graph: Graph = analyse(len(self.nodes), ways, waits_for_all=waits_for_all)
        self.forward = Counter(
            way.target for number, way in enumerate(ways) if number not in self.graph.back
        )
        self.ids = tuple(node.id for _, node in self.nodes)


def join_kind(node: Node) -> str:
    """How a node joins: "all", "any", "first" or "quorum"."""
    kind = node.join.WhichOneof("kind")
    return kind if kind is not None and getattr(node.join, kind) else "all"


def edge_kind(edge: Edge) -> EdgeKind:
    """When a way is taken. A mark that is false is none."""
    kind = edge.WhichOneof("condition")
    return (
        EdgeKind(kind)
        if kind is not None and (kind == "when" or getattr(edge, kind))
        else EdgeKind.ALWAYS
    )


def needed(node: Node, ways: int) -> int | None:
    """How many ways in have to be taken; None: all have to be known, and one taken."""
    match join_kind(node):
        case "any":
            return 1
        case "first":
            return node.join.first
        case "quorum":
            return ways // 2 + 1
        case _:
            return None


def check_graph(shape: Shape, faults: Faults) -> None:
    """Takes down what is wrong with the ways."""
    graph = shape.graph
    for number, (place, node) in enumerate(shape.nodes):
        here = f"nodes[{place}]"
        if not graph.reachable >> number & 1:
            words = "cannot be reached: no way leads here from a node that the workflow begins with"
            faults.add(FaultKind.FAULT_KIND_UNREACHABLE, here, words)
            continue
        if number in graph.heads and node.max_visits < 2:  # noqa: PLR2004  twice is the least of a loop
            words = "ways lead back to this node: it needs a bound of 2 and more"
            faults.add(FaultKind.FAULT_KIND_UNBOUNDED_CYCLE, f"{here}.max_visits", words)
        _join(node, shape.forward[number], f"{here}.join", faults)
    leaving: dict[str, set[EdgeKind]] = {}
    for _, edge in shape.edges:
        leaving.setdefault(getattr(edge, "from"), set()).add(edge_kind(edge))
    for place, node in shape.nodes:
        kinds = leaving.get(node.id, set())
        if EdgeKind.WHEN in kinds and not kinds & {EdgeKind.OTHERWISE, EdgeKind.ALWAYS}:
            words = "has ways with conditions, and none for when no condition holds"
            faults.add(FaultKind.FAULT_KIND_NO_DEFAULT, f"nodes[{place}]", words)


def _join(node: Node, ways: int, place: str, faults: Faults) -> None:
    least = needed(node, ways)
    if least is not None and least > ways:
        words = f"asks for {least} ways, and {ways} lead here that do not lead back"
        faults.add(FaultKind.FAULT_KIND_IMPOSSIBLE_JOIN, place, words)
