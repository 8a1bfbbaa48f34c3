"""From a workflow as it is submitted to the plan that its runs follow, or all that is wrong with it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from weft.agents.orchestrator.patterns import COMPOSITES, Composites
from weft.agents.orchestrator.plan.actions import Actions
from weft.agents.orchestrator.plan.check_calls import Calls
from weft.agents.orchestrator.plan.check_graph import (
    Shape,
    check_graph,
    edge_kind,
    join_kind,
    needed,
)
from weft.agents.orchestrator.plan.check_shape import check_shape
from weft.agents.orchestrator.plan.expressions import Expressions, Place
from weft.agents.orchestrator.plan.faults import Faults, WorkflowInvalid
from weft.agents.orchestrator.plan.graph import members
from weft.agents.orchestrator.plan.model import (
    EdgeKind,
    Expression,
    Plan,
    PlanEdge,
    PlanNode,
)
from weft.agents.orchestrator.plan.outputs import Outputs, Typed
from weft.agents.orchestrator.plan.types import item_of
from weft.agents.orchestrator.plan.world import World
from weft.v1.workflow_pb2 import FaultKind, SpecFault, WorkflowSpec

_WEEK: Final = timedelta(days=7)


def compile_workflow(
    spec: WorkflowSpec,
    world: World,
    scopes: Collection[str] | None = None,
    *,
    version: int = 0,
    composites: Composites = COMPOSITES,
) -> Plan:
    """Checks a workflow and compiles it.

    Args:
        spec: as it is submitted.
        world: what it is checked against.
        scopes: of whoever submits it; None: all.
        version: which version of its name it is.
        composites: those of the nodes that are made of parts.

    Raises:
        WorkflowInvalid: with all that is wrong.
        NotImplementedError: it has a pattern that this orchestrator has no composite for.
    """
    compiler = _Compiler(spec, world, scopes, composites)
    plan = compiler.compile(version)
    found = compiler.faults.sorted()
    if found or plan is None:
        raise WorkflowInvalid(found)
    return plan


def check_workflow(
    spec: WorkflowSpec, world: World, scopes: Collection[str] | None = None
) -> tuple[list[SpecFault], str]:
    """All that is wrong with a workflow, and the type of its result; empty where that is not known."""
    try:
        return [], compile_workflow(spec, world, scopes).output_type
    except WorkflowInvalid as invalid:
        return list(invalid.faults), ""


def digest_of(spec: WorkflowSpec) -> str:
    """SHA-256 of a workflow, in hexadecimal digits."""
    return hashlib.sha256(spec.SerializeToString(deterministic=True)).hexdigest()


def contained(spec: WorkflowSpec) -> list[tuple[str, int]]:
    """Names and versions of the workflows that one runs: those that a world has to know to check it."""
    kinds = (node for node in spec.nodes if node.WhichOneof("kind") == "workflow")
    return [(node.workflow.name, node.workflow.version) for node in kinds]


class _Compiler:
    def __init__(
        self,
        spec: WorkflowSpec,
        world: World,
        scopes: Collection[str] | None,
        composites: Composites,
    ) -> None:
        self.faults = Faults()
        self._spec = spec
        self._world = world
        self._scopes = scopes
        self._composites = composites

    def compile(self, version: int) -> Plan | None:
        spec, faults = self._spec, self.faults
        if not check_shape(spec, faults):
            return None
        shape = Shape(spec.nodes, spec.edges)
        check_graph(shape, faults)
        self._shape = shape
        outputs = Outputs(self._world, spec.name, faults)
        input_type = outputs.known_type(spec.input_type, "input_type")
        typed = outputs.of(shape.nodes, input_type)
        types = {each.node.id: each.output_type for each in typed}
        approvals = frozenset(each.node.id for each in typed if each.asks)
        self._expressions = Expressions(self._world.types, input_type, types, approvals, faults)
        self._calls = Calls(self._world, self._expressions, self._scopes, faults)
        self._actions = Actions(
            self._expressions, self._calls, self._composites, outputs.children, faults
        )
        edges = self._edges()
        nodes = [self._node(number, each, edges) for number, each in enumerate(typed)]
        output, output_type = self._output(types)
        if len(faults):
            return None
        made = [node for node in nodes if node is not None]
        assert len(made) == len(nodes)
        own = spec.HasField("max_duration")
        return Plan(
            name=spec.name,
            version=version,
            digest=digest_of(spec),
            types=self._world.types,
            graph=shape.graph,
            nodes={node.id: node for node in made},
            begin=tuple(made[number].id for number in shape.graph.begin),
            input_type=spec.input_type,
            output=output,
            output_type=output_type,
            max_duration=spec.max_duration.ToTimedelta() if own else _WEEK,
        )

    def _place(self, path: str, number: int, *, after: bool = False) -> Place:
        """A place at a node: before what it gives is there, or after that."""
        ids = self._shape.ids
        mask = self._shape.graph.earlier[number] | after << number
        return Place(path=path, earlier=frozenset(ids[each] for each in members(mask)))

    def _edges(self) -> list[PlanEdge]:
        made: list[PlanEdge] = []
        for number, (place, edge) in enumerate(self._shape.edges):
            kind, source = edge_kind(edge), getattr(edge, "from")
            condition: Expression | None = None
            if kind is EdgeKind.WHEN:
                here = self._place(f"edges[{place}].when", self._shape.numbers[source], after=True)
                condition = self._expressions.boolean(edge.when, here)
            made.append(
                PlanEdge(
                    number=number,
                    source=source,
                    target=edge.to,
                    kind=kind,
                    condition=condition,
                    back=number in self._shape.graph.back,
                )
            )
        return made

    def _node(self, number: int, each: Typed, edges: list[PlanEdge]) -> PlanNode | None:
        node, graph = each.node, self._shape.graph
        here = self._place(f"nodes[{each.place}]", number)
        action = self._actions.compile(node, here)
        compensation = None
        if node.HasField("compensation"):
            undoing = self._place(f"{here.path}.compensation", number, after=True)
            compensation = self._calls.compile(node.compensation, None, undoing)
        if action is None or each.output_type is None:
            return None
        bound: int | None = node.max_visits or None
        if not graph.on_a_circle(number):
            bound = 1
        return PlanNode(
            id=node.id,
            number=number,
            action=action,
            needed=needed(node, self._shape.forward[number]) if join_kind(node) != "all" else None,
            max_visits=bound,
            timeout=node.timeout.ToTimedelta() if node.HasField("timeout") else None,
            compensation=compensation,
            ways_in=tuple(edge for edge in edges if edge.target == node.id),
            ways_out=tuple(edge for edge in edges if edge.source == node.id),
            output_type=each.output_type,
        )

    def _output(self, types: dict[str, str | None]) -> tuple[Expression | None, str]:
        spec = self._spec
        if spec.output:
            everything = Place(path="output", earlier=frozenset(types))
            found = self._expressions.any_message(spec.output, everything)
            return found or (None, "")
        leaving = {
            getattr(edge, "from")
            for number, (_, edge) in enumerate(self._shape.edges)
            if number not in self._shape.graph.back and edge_kind(edge) is not EdgeKind.FAILED
        }
        ends = {name for node, name in types.items() if node not in leaving}
        if None in ends or not ends:
            return None, ""
        if len(ends) > 1 or any(item_of(name or "") for name in ends):
            words = "has to be said: the nodes that end the workflow give " + ", ".join(
                sorted(name or "" for name in ends)
            )
            self.faults.add(FaultKind.FAULT_KIND_TYPE_MISMATCH, "output", words)
            return None, ""
        return None, ends.pop() or ""
