"""What a run takes over of the log of one that it goes on from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from weft.agents.orchestrator.errors import StepNotFound
from weft.agents.orchestrator.plan.model import Plan
from weft.v1.orchestrator_pb2 import (
    STEP_STATE_COMPENSATED,
    STEP_STATE_FAILED,
    STEP_STATE_SKIPPED,
    RunEvent,
)

_PART, _UNDO = "/", "~undo"


def taken_over(log: Sequence[RunEvent], step: str, plan: Plan) -> list[RunEvent]:
    """The events of a log that go on to count when a step is done again, and all that came of it.

    What a run did beside that step is kept: what leads to it does not come of the step. What was undone counts no more,
    so that is done again as well.

    Args:
        log: of a run that has ended, from its first event.
        step: key of the step; empty: those that failed.
        plan: the workflow.

    Raises:
        StepNotFound: there was no such step.
    """
    again = _again(log, step)
    kept: list[RunEvent] = []
    gone: set[str] = set()  # nodes behind a step that is done again
    for event in log:
        if event.WhichOneof("kind") == "approval":
            key = event.approval.step
        elif event.WhichOneof("kind") == "step":
            key = event.step.key
        else:
            continue
        node = key.partition("@")[0]
        if any(_belongs(key, each) for each in again):
            gone |= _behind(plan, node)
        elif node not in gone and not _over(event, key):
            kept.append(event)
    return kept


def _over(event: RunEvent, key: str) -> bool:
    """Whether it happened since the run was over, or had no use: it does not count for another one."""
    return key.endswith(_UNDO) or event.step.state in (STEP_STATE_SKIPPED, STEP_STATE_COMPENSATED)


def _again(log: Sequence[RunEvent], step: str) -> Collection[str]:
    steps = [event.step for event in log if event.WhichOneof("kind") == "step"]
    again = {each.key for each in steps if each.state == STEP_STATE_COMPENSATED}
    if step:
        if all(each.key != step or each.state == STEP_STATE_SKIPPED for each in steps):
            raise StepNotFound
        return again | {step}
    states = {each.key: each.state for each in steps if not each.key.endswith(_UNDO)}
    failed = {key for key, state in states.items() if state == STEP_STATE_FAILED}
    # Of a step that is made of parts, those that did not fail are kept.
    whole = {key for key in failed if any(each.startswith(key + _PART) for each in failed)}
    return again | (failed - whole)


def _belongs(key: str, step: str) -> bool:
    """Whether a step is another one, or a part of it, or what it is a part of."""
    return key == step or key.startswith((step + _PART, step + "~")) or step.startswith(key + _PART)


def _behind(plan: Plan, node: str) -> set[str]:
    """Nodes that are come to from a node."""
    found: set[str] = set()
    ahead = [node]
    while ahead:
        declared = plan.nodes.get(ahead.pop())
        for way in declared.ways_out if declared is not None else ():
            if way.target not in found:
                found.add(way.target)
                ahead.append(way.target)
    return found
