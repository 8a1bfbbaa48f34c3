"""Random workflows that are sound, for the reference and as they are submitted."""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st
from tests.orchestrator.lab import call, spec, way, world
from tests.orchestrator.run.reference import Condition, Graph, Path, Step

from weft.agents.orchestrator.plan.compile import compile_workflow
from weft.agents.orchestrator.plan.model import Plan
from weft.agents.orchestrator.plan.world import DescriptorWorld

_KINDS = ["call", "call", "call", "compute", "gate", "each"]
_WAYS = ["always", "always", "when", "when", "failed"]
_CALM = ["always", "always", "always", "when"]
_JOINS = ["all", "all", "all", "any", "first", "quorum"]
_UNDO = {"method": "lab.v1.LabService/Work", "fields": {"by_path": {"text": "'undo'"}}}


@st.composite
def graphs(draw: st.DrawFn, *, most: int = 9) -> Graph:
    """A graph in which everything is reached, every choice has a default, and every loop a bound."""
    calm = draw(st.booleans())  # nothing fails, so that loops and joins get far
    steps = [_step(draw, f"n{number}", calm) for number in range(draw(st.integers(1, most)))]
    pairs = _pairs(draw, len(steps))
    paths: list[Path] = []
    for number, step in enumerate(steps):
        targets = [target for source, target in pairs if source == number]
        kinds = [draw(st.sampled_from(_CALM if calm else _WAYS)) for _ in targets]
        for at, target in enumerate(targets):
            if target <= number and kinds[at] == "always":
                kinds[at] = "when"  # a loop that is left before its bound
        whens = [at for at, kind in enumerate(kinds) if kind == "when"]
        if whens and "always" not in kinds:
            kinds[whens[-1]] = "otherwise"
        for target, kind in zip(targets, kinds, strict=True):
            condition = _condition(draw, step, steps) if kind == "when" else None
            paths.append(Path(step.id, steps[target].id, kind, condition))
    graph = Graph(steps, paths, draw(st.integers(0, 1000)))
    heads = {paths[number].target for number in graph.back}
    for step in steps:
        ways = len(graph.forward_into(step.id))
        if ways:
            step.join = draw(st.sampled_from(_JOINS))
            step.first = draw(st.integers(1, ways))
        if step.id in heads:
            step.max_visits = draw(st.integers(2, 4))
    return graph


def _pairs(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """Ways by the numbers of their ends, no two of the same; all but the first node are led to from an earlier one."""
    pairs: list[tuple[int, int]] = []
    for number in range(1, size):
        near = st.integers(max(0, number - 3), number - 1)
        pairs += [(source, number) for source in draw(st.lists(near, min_size=1, max_size=3))]
        if draw(st.integers(0, 3)) == 0:
            pairs.append((number, draw(st.integers(max(1, number - 4), number))))
        if draw(st.integers(0, 5)) == 0:
            pairs.append((draw(st.integers(0, size - 1)), number))
    return list(dict.fromkeys(draw(st.permutations(pairs))))


def _step(draw: st.DrawFn, id_: str, calm: bool) -> Step:  # noqa: FBT001  a mood
    kind = draw(st.sampled_from([each for each in _KINDS if each != "gate"] if calm else _KINDS))
    items = draw(st.integers(0, 5)) if kind == "each" else 0
    return Step(
        id=id_,
        kind=kind,
        fails=0 if calm or kind not in {"call", "each"} else draw(st.sampled_from([0, 0, 2, 5])),
        undone=draw(st.booleans()),
        items=items,
        at_once=draw(st.integers(1, 3)),
        least=draw(st.integers(0, items + (not calm))) if items else 0,
    )


def _condition(draw: st.DrawFn, step: Step, steps: list[Step]) -> Condition:
    kinds = ["ran", "decision" if step.kind == "gate" else "number"]
    kind = draw(st.sampled_from(kinds))
    if kind == "decision":
        return Condition(kind, rest=draw(st.integers(1, 3)))
    if kind == "ran":
        return Condition(kind, node=draw(st.sampled_from([each.id for each in steps])))
    modulus = draw(st.integers(2, 3))
    return Condition(kind, modulus=modulus, rest=draw(st.integers(0, modulus - 1)))


@cache
def _world() -> DescriptorWorld:
    return world()


def compiled(graph: Graph) -> tuple[Plan, Message]:
    """The plan of a graph, and what its runs begin with."""
    visits = " + ',' + ".join(f"string(visits.{step.id})" for step in graph.steps)
    made = compile_workflow(
        spec(
            nodes=[_node(step) for step in graph.steps],
            edges=[_edge(graph, path) for path in graph.paths],
            output=f"lab.v1.Result{{text: {visits}}}",
        ),
        _world(),
    )
    given = made.types.new("lab.v1.Order")
    given.text = "input"
    return made, given


def _node(step: Step) -> dict[str, Any]:
    made: dict[str, Any] = {"id": step.id, "max_visits": step.max_visits}
    if step.join == "first":
        made["join"] = {"first": step.first}
    elif step.join != "all":
        made["join"] = {step.join: True}
    if step.undone:
        made["compensation"] = _UNDO
    match step.kind:
        case "compute":
            fields = {"by_path": {"n": f"visits.{step.id}"}}
            made["compute"] = {"type": "lab.v1.Result", "fields": fields}
        case "gate":
            made["approval"] = {"title": "'Go on?'", "show": "input"}
        case "each":
            numbers = ", ".join(str(number) for number in range(step.items))
            called = call(fields={"by_path": {"n": "item + index"}})
            over = f"[{numbers}]" if numbers else "input.items.map(each, each.n)"
            made["for_each"] = {
                "over": over,
                "calls": [called],
                "at_once": step.at_once,
                "least": step.least,
            }
        case _:
            made["call"] = call(fields={"by_path": {"n": f"visits.{step.id}"}})
    return made


def _edge(graph: Graph, path: Path) -> dict[str, Any]:
    if path.kind == "always":
        return way(path.source, path.target)
    if path.condition is None:
        return way(path.source, path.target, **{path.kind: True})
    condition, kind = path.condition, graph.by_id[path.source].kind
    match condition.kind:
        case "number":
            number = f"size({path.source})" if kind == "each" else f"{path.source}.n"
            words = f"{number} % {condition.modulus} == {condition.rest}"
        case "decision":
            words = f"int(decisions.{path.source}.verdict) == {condition.rest}"
        case _:
            words = f"ran.{condition.node}"
    return way(path.source, path.target, when=words)
