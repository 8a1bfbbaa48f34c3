"""What is to be seen of a workflow, or of a run: boxes and links between them, not yet anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final

from weft.agents.orchestrator.drawing.ranks import leading_back
from weft.agents.orchestrator.drawing.words import shortened
from weft.agents.orchestrator.forms.durations import shown
from weft.v1.orchestrator_pb2 import Run, RunState, Step, StepState
from weft.v1.workflow_pb2 import Call, DecisionRule, Edge, Node, WorkflowSpec

BEGIN, END = "", "/"  # ids of boxes that no node has
_COLUMNS: Final = 34
_STATES: Final = {
    StepState.STEP_STATE_RUNNING: "running",
    StepState.STEP_STATE_WAITING: "waiting",
    StepState.STEP_STATE_SUCCEEDED: "succeeded",
    StepState.STEP_STATE_FAILED: "failed",
    StepState.STEP_STATE_SKIPPED: "skipped",
    StepState.STEP_STATE_COMPENSATED: "compensated",
}


class Condition(Enum):
    """When a way is taken."""

    ALWAYS = "always"
    WHEN = "when"
    OTHERWISE = "otherwise"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a run made of a node.

    Attributes:
        state: such as "succeeded"; empty: the run has not come to it.
        time: how long it took, or has taken, such as "12 ms"; empty: it has not begun.
        visits: how often it was visited.
        parts: calls that it was made of, beside itself.
        begin: when it began, as a share of the run's time.
        end: when it ended.
        failure: why it failed.
    """

    state: str = ""
    time: str = ""
    visits: int = 0
    parts: int = 0
    begin: float = 0
    end: float = 0
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A node.

    Attributes:
        kind: name of the field of weft.v1.Node that says what it does; "begin" and "end" for where a run does.
        lines: what is written below its title.
        about: what it is for, in full.
        seen: what a run made of it; None: the picture is of no run.
    """

    id: str
    kind: str
    title: str
    lines: Sequence[str] = ()
    about: str = ""
    seen: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way.

    Attributes:
        label: its condition, as it is written.
        dim: in a run: it was not taken.
    """

    source: str
    target: str
    condition: Condition = Condition.ALWAYS
    label: str = ""
    dim: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is to be seen."""

    title: str
    about: str
    boxes: Sequence[Box]
    links: Sequence[Link]
    caption: str = ""
    """Of a run: how it stands."""
    state: str = ""
    """Of a run: its state, such as "succeeded"."""


def picture_of(
    spec: WorkflowSpec, run: Run | None = None, *, now: datetime | None = None
) -> Picture:
    """A workflow; with a run: what became of its nodes. Ways from and to nothing are left out.

    Args:
        spec: the workflow.
        run: with its steps.
        now: up to when steps that have not ended have lasted; None: to the last thing that happened.
    """
    seen = _seen(run, now) if run is not None else None
    nodes = {node.id: node for node in spec.nodes if node.id not in {BEGIN, END}}
    edges = [edge for edge in spec.edges if _from(edge) in nodes and edge.to in nodes]
    into = {edge.to for edge in edges}
    out = {_from(edge) for edge in edges if edge.to != _from(edge) and not edge.failed}
    first = [id_ for id_ in nodes if id_ not in into] or list(nodes)[:1]
    last = [id_ for id_ in nodes if id_ not in out]
    boxes = [Box(id=BEGIN, kind="begin", title=_short(spec.input_type) or "begin")]
    forward = _forward(list(nodes), first, edges)
    boxes += [_box(node, forward, seen) for node in nodes.values()]
    links = [Link(source=BEGIN, target=id_) for id_ in first]
    links += [_link(edge, seen) for edge in edges]
    if last:
        boxes.append(Box(id=END, kind="end", title="end"))
        links += [Link(source=id_, target=END, dim=_never(seen, id_)) for id_ in last]
    title = spec.name or "workflow"
    if run is not None and run.version:
        title = f"{title}, version {run.version}"
    return Picture(
        title=title,
        about=spec.description,
        boxes=boxes,
        links=links,
        caption=_caption(run) if run is not None else "",
        state=run_state(run) if run is not None else "",
    )


def _forward(nodes: Sequence[str], first: Sequence[str], edges: Sequence[Edge]) -> list[Edge]:
    """The ways that do not lead back, as joins count them."""
    numbers = {id_: number for number, id_ in enumerate(("", *nodes))}
    pairs = [(0, numbers[id_]) for id_ in first]
    pairs += [(numbers[_from(edge)], numbers[edge.to]) for edge in edges]
    back = leading_back(len(numbers), pairs)
    return [edge for number, edge in enumerate(edges, len(first)) if number not in back]


def run_state(run: Run) -> str:
    """The state of a run in a word."""
    return RunState.Name(run.state).removeprefix("RUN_STATE_").lower()


def took(span: timedelta) -> str:
    """How long something took: "3 ms", "1.2 s", "3m 5s", "2h 5m", "4d 2h"."""
    seconds = max(span.total_seconds(), 0)
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def _caption(run: Run) -> str:
    begin = run.create_time.ToDatetime(tzinfo=UTC)
    words = f"run {run.id}: {run_state(run)}"
    if run.HasField("end_time"):
        words += f" after {took(run.end_time.ToDatetime(tzinfo=UTC) - begin)}"
    if run.HasField("failure"):
        words += f", {run.failure.code}: {shortened(run.failure.message, 60)}"
    return words


def _seen(run: Run, at: datetime | None) -> dict[str, Seen]:
    begin = run.create_time.ToDatetime(tzinfo=UTC)
    moments = [_time(run, "end_time")]
    for step in run.steps:
        moments += [_time(step, "start_time"), _time(step, "end_time")]
    if not run.HasField("end_time"):
        moments.append(at)
    now = max([each for each in moments if each is not None], default=begin)
    whole = max((now - begin).total_seconds(), 1e-6)
    found: dict[str, Seen] = {}
    parts: dict[str, int] = {}
    for step in run.steps:
        if "/" in step.key:
            parts[step.node] = parts.get(step.node, 0) + 1
            continue
        if step.key.endswith("~undo"):
            continue
        start, end = _time(step, "start_time"), _time(step, "end_time")
        before = found.get(step.node, Seen())
        state = _STATES.get(step.state, "")
        open_end = end or now
        ran = start is not None and state != "skipped"
        share = (lambda at: min(max((at - begin).total_seconds() / whole, 0), 1)) if ran else None
        found[step.node] = Seen(
            state=state,
            time=took(open_end - start) if start is not None and ran else before.time,
            visits=before.visits + ran,
            begin=share(start) if share and start else before.begin,
            end=share(open_end) if share else before.end,
            failure=step.failure.message if step.HasField("failure") else "",
        )
    return {
        node: Seen(
            state=each.state,
            time=each.time,
            visits=each.visits,
            parts=parts.get(node, 0),
            begin=each.begin,
            end=each.end,
            failure=each.failure,
        )
        for node, each in found.items()
    }


def _time(of: Run | Step, name: str) -> datetime | None:
    if not of.HasField(name):  # type: ignore[arg-type]  # a field of both
        return None
    found: datetime = getattr(of, name).ToDatetime(tzinfo=UTC)
    return found


def _box(node: Node, edges: Sequence[Edge], seen: Mapping[str, Seen] | None) -> Box:
    lines = [shortened(line, _COLUMNS) for line in (*_about(node), *_joins(node, edges))]
    return Box(
        id=node.id,
        kind=node.WhichOneof("kind") or "node",
        title=shortened(node.id, _COLUMNS),
        lines=lines,
        about=node.description,
        seen=None if seen is None else seen.get(node.id, Seen()),
    )


def _link(edge: Edge, seen: Mapping[str, Seen] | None) -> Link:
    source = _from(edge)
    dim = _never(seen, source) or _never(seen, edge.to)
    match edge.WhichOneof("condition"):
        case "when":
            condition, label = Condition.WHEN, edge.when
        case "otherwise":
            condition, label = Condition.OTHERWISE, "otherwise"
        case "failed":
            condition, label = Condition.FAILED, "failed"
        case _:
            condition, label = Condition.ALWAYS, ""
    return Link(source=source, target=edge.to, condition=condition, label=label, dim=dim)


def _never(seen: Mapping[str, Seen] | None, node: str) -> bool:
    return seen is not None and seen.get(node, Seen()).state in {"", "skipped"}


def _from(edge: Edge) -> str:
    found: str = getattr(edge, "from")
    return found


def _joins(node: Node, edges: Sequence[Edge]) -> Iterator[str]:
    ways = sum(edge.to == node.id for edge in edges)
    match node.join.WhichOneof("kind"):
        case "any":
            yield f"begins with any of {ways} ways"
        case "first":
            yield f"begins with {node.join.first} of {ways} ways"
        case "quorum":
            yield f"begins with most of {ways} ways"


def _about(node: Node) -> Iterator[str]:  # noqa: C901, PLR0912  a case for each kind
    match node.WhichOneof("kind"):
        case "call":
            yield _called(node.call)
        case "for_each":
            if node.for_each.over:
                yield f"each of {node.for_each.over}"
            for call in list(node.for_each.calls)[:4]:
                yield _called(call)
        case "compute":
            yield _short(node.compute.type)
        case "approval":
            quorum = node.approval.quorum
            yield f"{quorum} people decide" if quorum > 1 else "a person decides"
            if node.approval.HasField("expires"):
                yield f"within {shown(node.approval.expires)}"
        case "wait":
            yield f"for {node.wait.name!r}"
            if node.wait.HasField("timeout"):
                yield f"up to {shown(node.wait.timeout)}"
        case "timer":
            timer = node.timer
            yield shown(timer.pause) if timer.HasField("pause") else f"until {timer.at}"
        case "workflow":
            version = f"@{node.workflow.version}" if node.workflow.version else ""
            yield f"{node.workflow.name}{version}"
        case "debate":
            yield _names(each.name for each in node.debate.participants)
            rule = DecisionRule.Name(node.debate.rule).removeprefix("DECISION_RULE_").lower()
            yield "by majority" if rule == "unspecified" else f"by {rule}"
        case "panel":
            yield _names(each.name for each in node.panel.experts)
            yield f"brought together by {node.panel.synthesizer.name}"
        case "verification":
            yield f"{node.verification.author.name}, verified by {node.verification.verifier.name}"
        case "supervision":
            yield f"{node.supervision.supervisor.name} leads"
            yield _names(each.name for each in node.supervision.workers)
        case "peer_review":
            yield _names(each.name for each in node.peer_review.participants)
    if node.HasField("compensation"):
        yield f"undone by {_called(node.compensation)}"


def _names(names: Iterator[str]) -> str:
    return ", ".join(names)


def _called(call: Call) -> str:
    service, _, method = call.method.rpartition("/")
    if call.WhichOneof("target") == "agent":
        return f"{call.agent}.{method}"
    if call.WhichOneof("target") == "capability":
        return f"{', '.join(call.capability.tags) or 'any'}: {method}"
    return f"{_short(service)}.{method}"


def _short(name: str) -> str:
    return name.rpartition(".")[2]
