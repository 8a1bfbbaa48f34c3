"""What a run does, as a pure function of its plan and its events.

The same events give the same turns whether they come as they happen or are read from a log, in whatever portions: what
follows from an event is settled when the event is applied. Nothing here reads a clock, waits, or chooses.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from google.protobuf.message import Message

from weft.agents.orchestrator.plan.model import (
    ApprovalAction,
    CallAction,
    CompositeAction,
    ComputeAction,
    EdgeKind,
    ExpressionFailed,
    Plan,
    PlanEdge,
    PlanNode,
    RunAction,
    Scope,
    TimerAction,
    WaitAction,
)
from weft.agents.orchestrator.plan.types import Given, pack
from weft.agents.orchestrator.run import failures
from weft.agents.orchestrator.run.composite import Course, Done, Finished, Part
from weft.agents.orchestrator.run.flow import Begun, Flow, History
from weft.agents.orchestrator.run.scope import RunScope
from weft.agents.orchestrator.run.turns import (
    Ended,
    OpenApproval,
    OpenCall,
    OpenRun,
    OpenStep,
    OpenTimer,
    OpenWait,
    Turn,
)
from weft.agents.orchestrator.run.undoing import UNDO, Undoing, open_call
from weft.v1 import orchestrator_pb2 as pb
from weft.v1.workflow_pb2 import RunInfo, StepFailure, TypedMessage, Verdict

_ENDED = frozenset({pb.STEP_STATE_SUCCEEDED, pb.STEP_STATE_FAILED})


@dataclass(slots=True, eq=False)
class _Visit:
    """A visit of a node that is under way."""

    node: PlanNode
    number: int
    key: str
    history: History
    scope: Scope = field(default_factory=dict)
    course: Course | None = None
    done: dict[str, Done] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    """Keys of parts that are under way, below that of the step."""


class Interpreter:
    """A run.

    Args:
        plan: what it follows.
        run: about it, as expressions see it.
        given: what it begins with.
        seed: settles chance in patterns; None: by the run's id. A run that goes on from another one takes that one's.
    """

    def __init__(
        self, plan: Plan, run: RunInfo, given: Message, *, seed: int | None = None
    ) -> None:
        self._plan = plan
        self._nodes = tuple(plan.nodes.values())
        self._scope = RunScope(plan, run, given)
        self._flow = Flow(plan)
        self._seed = seed if seed is not None else seed_of(run.id)
        self._visits: dict[str, _Visit] = {}
        self._parts: dict[str, tuple[_Visit, str]] = {}
        self._open: dict[str, OpenStep] = {}
        self._open_view: Mapping[str, OpenStep] = MappingProxyType(self._open)
        self._arriving: deque[tuple[PlanEdge, History]] = deque()
        self._told: dict[tuple[str, int], pb.Step] = {}
        self._undoing = Undoing()
        self._last: Given | None = None
        self._ended: Ended | None = None
        for begun in self._flow.start():
            self._begin(begun)
        self._go_on()

    def turn(self) -> Turn:
        """What is next. What it tells is told once."""
        told = list(self._told.values())
        self._told.clear()
        undo = self._undoing if self._ended is None else tuple(self._undoing)
        return Turn(told=told, open=self._open_view, ended=self._ended, undo=undo)

    def apply(self, event: pb.RunEvent) -> bool:
        """Takes an event of the log.

        Events that say nothing new are passed over: of steps that are not under way, of attempts, and those that only
        repeat what `Turn.told` said.

        Returns:
            Whether the event changed anything.
        """
        match event.WhichOneof("kind"):
            case "step":
                changed = self._apply_step(event.step)
            case "approval":
                changed = self._apply_approval(event.approval)
            case "run":
                changed = self._apply_run(event.run)
            case _:
                return False
        if changed and self._ended is None:
            self._go_on()
        return changed

    # Events.

    def _apply_step(self, step: pb.Step) -> bool:
        self._told.pop((step.key, step.state), None)
        if step.state not in _ENDED:
            return False
        if step.key in self._parts:
            visit, part = self._parts.pop(step.key)
            self._close(step.key)
            visit.parts.discard(part)
            visit.done[part] = self._part_done(step)
            self._advance(visit)
            return True
        visit_of = self._visits.get(step.key)
        if visit_of is None or step.key not in self._open:
            return self._undone(step)
        if step.state == pb.STEP_STATE_FAILED:
            self._fail(visit_of, step.failure, tell=False)
            return True
        try:
            given = self._unpack(step.output, visit_of.node.output_type)
        except (LookupError, ValueError) as failed:
            failure = failures.internal("BAD_OUTPUT", str(failed))
            self._fail(visit_of, failure, tell=True)
        else:
            self._succeed(visit_of, given, tell=False)
        return True

    def _part_done(self, step: pb.Step) -> Done:
        if step.state == pb.STEP_STATE_FAILED:
            return Done(failure=step.failure)
        try:
            given = self._unpack(step.output, step.output.type)
        except (LookupError, ValueError) as failed:
            return Done(failure=failures.internal("BAD_OUTPUT", str(failed)))
        return Done(message=given if isinstance(given, Message) else None)

    def _unpack(self, output: TypedMessage, name: str) -> Given:
        if output.type not in {"", name}:
            raise ValueError(f"a {output.type} came, and not a {name}")
        return self._plan.types.unpack(output if output.type else TypedMessage(type=name))

    def _apply_approval(self, approval: pb.Approval) -> bool:
        visit = self._visits.get(approval.step)
        decision = approval.decision
        if visit is None or decision.verdict == Verdict.VERDICT_UNSPECIFIED:
            return False
        if not isinstance(visit.node.action, ApprovalAction):
            return False
        self._scope.decided(visit.node.id, decision)
        if decision.verdict == Verdict.VERDICT_APPROVED:
            try:
                given = self._unpack(approval.shown, visit.node.output_type)
            except (LookupError, ValueError) as failed:
                self._fail(visit, failures.internal("BAD_OUTPUT", str(failed)), tell=True)
            else:
                self._succeed(visit, given, tell=True)
            return True
        self._refused(visit, decision.verdict, decision.comment)
        return True

    def _refused(self, visit: _Visit, verdict: Verdict.ValueType, comment: str) -> None:
        """Not approved: ways with conditions decide; without one that is taken the step has failed."""
        try:
            ways = self._chosen(visit.node)
        except ExpressionFailed as failed:
            self._fail(visit, failures.of_expression(failed), tell=True)
            return
        if not ways:
            self._fail(visit, failures.of_verdict(verdict, comment), tell=True)
            return
        self._leave(visit)
        self._tell(visit.key, visit.node.id, visit.number, pb.STEP_STATE_SUCCEEDED)
        self._take(ways, visit.history)

    def _apply_run(self, run: pb.Run) -> bool:
        if self._ended is not None:
            return False
        if run.HasField("failure"):
            self._finish(Ended(failure=run.failure))
        elif run.cancelling:
            self._finish(Ended(failure=failures.cancelled()))
        else:
            return False
        return True

    def _undone(self, step: pb.Step) -> bool:
        if self._ended is None or not self._undoing.drop(step.key):
            return False
        if step.state == pb.STEP_STATE_SUCCEEDED:
            key = step.key.removesuffix(UNDO)
            node, _, visit = key.rpartition("@")
            self._tell(key, node, int(visit), pb.STEP_STATE_COMPENSATED)
        return True

    # Steps.

    def _go_on(self) -> None:
        """Begins what is to begin, until everything waits for something, or the run is over."""
        while self._ended is None:
            begun: Begun | None = None
            if self._arriving:
                begun = self._flow.arrive(*self._arriving.popleft())
                if begun is None:
                    continue
            else:
                begun = self._flow.settle()
                if begun is None:
                    break
            self._begin(begun)
        if self._ended is None and self._flow.idle:
            self._finish(self._result())

    def _begin(self, begun: Begun) -> None:
        if self._ended is not None:
            return
        node = self._nodes[begun.number]
        visit = _Visit(node, begun.visit, f"{node.id}@{begun.visit}", begun.history)
        self._visits[visit.key] = visit
        self._scope.begun(node.id, begun.visit)
        try:
            self._open_action(visit)
        except ExpressionFailed as failed:
            self._fail(visit, failures.of_expression(failed), tell=True)

    def _open_action(self, visit: _Visit) -> None:
        key, scope, action = visit.key, self._scope.live, visit.node.action
        match action:
            case CallAction():
                request = action.request.message(scope)
                self._open[key] = open_call(key, action, request, scope)
            case ComputeAction():
                self._succeed(visit, action.message.message(scope), tell=True)
            case CompositeAction():
                visit.scope = self._scope.snapshot()
                visit.course = action.composite.begin(visit.scope, self._seed_of(key))
                self._tell(key, visit.node.id, visit.number, pb.STEP_STATE_RUNNING)
                self._advance(visit)
            case ApprovalAction():
                title, shown = action.title.text(scope), action.show.message(scope)
                self._open[key] = OpenApproval(key=key, action=action, title=title, shown=shown)
            case WaitAction():
                self._open[key] = OpenWait(key=key, action=action)
            case TimerAction():
                at = None if action.at is None else action.at.message(scope)
                self._open[key] = OpenTimer(key=key, action=action, at=at)
            case RunAction():
                given = action.input.message(scope)
                self._open[key] = OpenRun(key=key, action=action, input=given)

    def _advance(self, visit: _Visit) -> None:
        """Asks a step made of parts what is next, as long as that changes what is done."""
        assert visit.course is not None
        changed = True
        while changed:
            try:
                following = visit.course.next(visit.done)
            except ExpressionFailed as failed:
                self._fail(visit, failures.of_expression(failed), tell=True)
                return
            if isinstance(following, Finished):
                self._finish_composite(visit, following)
                return
            changed = self._open_parts(visit, following)
        if not visit.parts:
            words = "The step neither ended nor has anything to do."
            self._fail(visit, failures.internal("STUCK", words), tell=True)

    def _open_parts(self, visit: _Visit, parts: Sequence[Part]) -> bool:
        """Opens parts, and drops those that are not wanted any more. True: one has ended by that already."""
        wanted = {part.key for part in parts}
        for unwanted in sorted(visit.parts - wanted):
            self._drop_part(visit, unwanted)
        ended = False
        for part in parts:
            if part.key in visit.done or part.key in visit.parts:
                continue
            key = f"{visit.key}/{part.key}"
            scope = {**visit.scope, **part.variables}
            try:
                request = part.call.request.message(scope)
            except ExpressionFailed as failed:
                failure = failures.of_expression(failed)
                visit.done[part.key] = Done(failure=failure)
                self._tell(key, visit.node.id, visit.number, pb.STEP_STATE_FAILED, failure=failure)
                ended = True
                continue
            visit.parts.add(part.key)
            self._parts[key] = (visit, part.key)
            self._open[key] = OpenCall(
                key=key,
                call=part.call,
                request=request,
                retry=part.call.retry,
                timeout=part.call.timeout,
                reply=part.reply,
                scope=scope,
            )
        return ended

    def _finish_composite(self, visit: _Visit, finished: Finished) -> None:
        if finished.failure is not None:
            self._fail(visit, finished.failure, tell=True)
        elif finished.output is None:
            words = "The step ended without anything to give."
            self._fail(visit, failures.internal("NO_OUTPUT", words), tell=True)
        else:
            self._succeed(visit, finished.output, tell=True)

    def _drop_part(self, visit: _Visit, part: str) -> None:
        key = f"{visit.key}/{part}"
        visit.parts.discard(part)
        self._parts.pop(key, None)
        self._close(key)
        self._tell(key, visit.node.id, visit.number, pb.STEP_STATE_SKIPPED)

    def _succeed(self, visit: _Visit, given: Given, *, tell: bool) -> None:
        node = visit.node
        self._leave(visit)
        self._scope.gave(node.id, visit.number, given)
        if tell:
            output = pack(given, node.output_type)
            self._tell(visit.key, node.id, visit.number, pb.STEP_STATE_SUCCEEDED, output=output)
        if node.compensation is not None:
            self._undoing.add(visit.key, node.compensation, self._scope.snapshot())
        try:
            ways = self._unconditional(node) + self._chosen(node)
        except ExpressionFailed as failed:
            self._failed(visit, failures.of_expression(failed), tell=True)
            return
        if _is_end(node):
            self._last = given
        self._take(ways, visit.history)

    def _fail(self, visit: _Visit, failure: StepFailure, *, tell: bool) -> None:
        self._leave(visit)
        self._failed(visit, failure, tell=tell)

    def _failed(self, visit: _Visit, failure: StepFailure, *, tell: bool) -> None:
        node = visit.node
        self._scope.failed(node.id, failure)
        if tell:
            state = pb.STEP_STATE_FAILED
            self._tell(visit.key, node.id, visit.number, state, failure=failure)
        ways = [
            way for way in node.ways_out if way.kind is EdgeKind.FAILED and self._flow.open_to(way)
        ]
        if ways:
            self._take(ways, visit.history)
            return
        self._finish(Ended(failure=failures.of_step(visit.key, failure)))

    def _leave(self, visit: _Visit) -> None:
        """A visit is over: nothing of it is under way any more."""
        for part in sorted(visit.parts):
            self._drop_part(visit, part)
        del self._visits[visit.key]
        self._close(visit.key)
        self._flow.ended(visit.node.number)

    def _close(self, key: str) -> None:
        self._open.pop(key, None)

    # Ways.

    def _unconditional(self, node: PlanNode) -> list[PlanEdge]:
        return [
            way for way in node.ways_out if way.kind is EdgeKind.ALWAYS and self._flow.open_to(way)
        ]

    def _chosen(self, node: PlanNode) -> list[PlanEdge]:
        """Of the ways with conditions the first that holds, else those for when none does."""
        scope, otherwise = self._scope.live, []
        for way in node.ways_out:
            if way.kind is EdgeKind.OTHERWISE and self._flow.open_to(way):
                otherwise.append(way)
            if way.condition is None or not self._flow.open_to(way):
                continue
            if way.condition.truth(scope):
                return [way]
        return otherwise

    def _take(self, ways: Sequence[PlanEdge], history: History) -> None:
        self._arriving.extend((way, history) for way in ways)

    # The end.

    def _result(self) -> Ended:
        output = self._plan.output
        if output is not None:
            try:
                return Ended(output=output.message(self._scope.live))
            except ExpressionFailed as failed:
                return Ended(failure=failures.of_expression(failed))
        if isinstance(self._last, Message):
            return Ended(output=self._last)
        return Ended(failure=failures.no_result())

    def _finish(self, ended: Ended) -> None:
        self._ended = ended
        self._arriving.clear()
        for visit in list(self._visits.values()):
            for part in sorted(visit.parts):
                self._drop_part(visit, part)
            self._tell(visit.key, visit.node.id, visit.number, pb.STEP_STATE_SKIPPED)
        self._visits.clear()
        self._parts.clear()
        self._open.clear()
        for node in self._nodes:
            if not self._scope.visits(node.id):
                self._tell(f"{node.id}@1", node.id, 1, pb.STEP_STATE_SKIPPED)
        if ended.failure is None:
            self._undoing.clear()
        for key, failure in self._undoing.cannot().items():
            id_, _, number = key.removesuffix(UNDO).rpartition("@")
            self._tell(key, id_, int(number), pb.STEP_STATE_FAILED, failure=failure)

    def _tell(
        self,
        key: str,
        node: str,
        visit: int,
        state: pb.StepState.ValueType,
        *,
        output: TypedMessage | None = None,
        failure: StepFailure | None = None,
    ) -> None:
        step = pb.Step(key=key, node=node, visit=visit, state=state, output=output, failure=failure)
        self._told[key, state] = step

    def _seed_of(self, key: str) -> int:
        return seed_of(f"{self._seed}/{key}")


def seed_of(text: str) -> int:
    """A number of 64 bits that a text settles."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _is_end(node: PlanNode) -> bool:
    return not any(way.kind is not EdgeKind.FAILED and not way.back for way in node.ways_out)
