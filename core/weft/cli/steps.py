"""Runs of workflows as people read them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from weft.cli import output
from weft.v1 import orchestrator_pb2 as pb

if TYPE_CHECKING:
    from rich.text import Text

    from weft.v1.workflow_pb2 import StepFailure, TypedMessage

NAME_WIDTH = 26
_TIME_WIDTH = 9
TOLD_AT = 2 + NAME_WIDTH + _TIME_WIDTH + 2
"""The column at which lines say what came of a step."""
_MARKS = {
    pb.STEP_STATE_RUNNING: ("·", "blue"),
    pb.STEP_STATE_WAITING: ("◷", "yellow"),
    pb.STEP_STATE_SUCCEEDED: ("✓", "green"),
    pb.STEP_STATE_FAILED: ("✗", "red"),
    pb.STEP_STATE_SKIPPED: ("○", "dim"),
    pb.STEP_STATE_COMPENSATED: ("↶", "magenta"),
}
_TELLING = ("answer", "text", "result", "summary", "title", "message", "word", "value")
_DEPTH = 3


def state(run: pb.Run) -> str:
    """The state of a run in a word."""
    return pb.RunState.Name(run.state).removeprefix("RUN_STATE_")


def ended(run: pb.Run) -> bool:
    """Whether a run changes no more."""
    return run.state in {
        pb.RUN_STATE_SUCCEEDED,
        pb.RUN_STATE_FAILED,
        pb.RUN_STATE_CANCELLED,
    }


def over(step: pb.Step) -> bool:
    """Whether a step has ended."""
    return step.state not in {pb.STEP_STATE_RUNNING, pb.STEP_STATE_WAITING}


def took(of: pb.Run | pb.Step) -> timedelta | None:
    """How long a run or a step took, or has taken; None: it has not begun."""
    begin = of.create_time if isinstance(of, pb.Run) else of.start_time
    if not begin.ByteSize():
        return None
    end = of.end_time.ToDatetime(tzinfo=UTC) if of.HasField("end_time") else datetime.now(UTC)
    return max(end - begin.ToDatetime(tzinfo=UTC), timedelta(0))


def span(of: pb.Run | pb.Step) -> str:
    """How long it took, in words."""
    found = took(of)
    if found is None:
        return ""
    return output.age(found) if found >= timedelta(minutes=1) else output.milliseconds(found)


def name(step: pb.Step) -> str:
    """A step's name for people: "triage", "triage (2)" for its second visit; of a part, its path."""
    if "/" in step.key:
        return step.key.partition("/")[2]
    if step.key.endswith("~undo"):
        return f"{step.node} undone"
    return step.node if step.visit <= 1 else f"{step.node} ({step.visit})"


def line(step: pb.Step) -> Text:
    """A step in a line: mark, name, time, what came of it."""
    return row(step, "  " * step.key.count("/") + name(step))


def row(step: pb.Step, title: str, told: str | None = None) -> Text:
    """A line of a step that has a title of its own; `told` is what is said of it, None: what is said of any."""
    from rich.text import Text

    mark, style = _MARKS.get(step.state, ("?", "yellow"))
    found = Text.assemble((f"{mark} ", style))
    found.append(title.ljust(NAME_WIDTH), "" if title.startswith(" ") else "bold")
    took = span(step) if step.state != pb.STEP_STATE_SKIPPED else ""
    found.append(took.rjust(_TIME_WIDTH), "dim")
    told = about(step) if told is None else told
    if told:
        found.append(f"  {told}", "red" if step.state == pb.STEP_STATE_FAILED else "")
    return found


def about(step: pb.Step) -> str:
    """What is to be said of a step."""
    if step.HasField("failure"):
        return failure(step.failure)
    if step.state == pb.STEP_STATE_SKIPPED:
        return "not needed"
    if step.approval and step.state == pb.STEP_STATE_WAITING:
        return f"waits for a decision: weft approvals show {step.approval}"
    if step.child_run and step.state == pb.STEP_STATE_WAITING:
        return f"waits for run {step.child_run}"
    if step.state == pb.STEP_STATE_WAITING:
        return f"waits, attempt {step.attempts}" if step.attempts else "waits"
    return summary(step.output) if step.HasField("output") else ""


def failure(failed: StepFailure) -> str:
    """Why something failed, in a line."""
    reason = f" ({failed.reason})" if failed.reason else ""
    return f"{failed.code}{reason}: {' '.join(failed.message.split())}"


def spent(run: pb.Run) -> str:
    """What a run spent on models, and of how much; empty: nothing, of no budget."""
    spending, budget = run.spending, run.budget
    if not (spending.parts or spending.tokens or run.HasField("budget")):
        return ""
    limits = (
        f"{budget.tokens:,} tokens" * bool(budget.tokens),
        f"{_usd(budget.usd)}" * bool(budget.usd),
    )
    left = ", ".join(filter(None, limits))
    return _amount(spending.tokens, spending.usd) + (f" of {left}" if left else "")


def part(given: pb.SpendingPart) -> str:
    """What an agent spent on a model, in a line."""
    known = f", the cost of {given.unpriced} is not known" if given.unpriced else ""
    asked = f"{given.requests:,} request{'s' * (given.requests != 1)}"
    told = _amount(given.tokens, given.usd)
    return f"{given.agent or 'no agent'} by {given.model}: {told}, {asked}{known}"


def _amount(tokens: int, usd: float) -> str:
    return f"{tokens:,} tokens, {_usd(usd)}"


def _usd(amount: float) -> str:
    digits = f"{amount:.6f}".rstrip("0")
    return f"{digits}0 USD" if digits.endswith(".") else f"{digits} USD"


def value(given: TypedMessage) -> Any:
    """A message as its JSON; one whose type is not known, as base64."""
    form = given.WhichOneof("form")
    if form is None:
        return {}
    return _whole(output.as_json(given).get(form))


def _whole(found: Any) -> Any:
    """Whole numbers as such: a google.protobuf.Value knows no others than those with a fraction."""
    if isinstance(found, dict):
        return {key: _whole(each) for key, each in found.items()}
    if isinstance(found, list):
        return [_whole(each) for each in found]
    return int(found) if isinstance(found, float) and found.is_integer() else found


def summary(given: TypedMessage, most: int = 100) -> str:
    """A message in a line: its answer or text where it has one, else its JSON."""
    found = value(given)
    told = _telling(found, _DEPTH)
    if told is None:
        told = json.dumps(found, ensure_ascii=False)
    flat = " ".join(told.split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"


def _telling(found: Any, depth: int) -> str | None:
    if not isinstance(found, dict) or not depth:
        return None
    for key in _TELLING:
        if isinstance(found.get(key), str) and found[key]:
            return str(found[key])
    for each in found.values():
        told = _telling(each, depth - 1)
        if told is not None:
            return told
    return None
