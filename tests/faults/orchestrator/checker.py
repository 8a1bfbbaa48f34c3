"""Whether what was promised was kept (docs/workflows.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.orchestrator.caller import Seen
from tests.faults.orchestrator.evidence import Blow, Evidence, Hold, Logged
from tests.faults.orchestrator.graph import expected

from weft.echo.v1 import echo_pb2
from weft.v1 import orchestrator_pb2 as pb

_FRESH = 0.05  # seconds a call needs to arrive


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
        violations: what was promised and not kept.
        ended: runs by state.
        steps: calls of agents that succeeded.
        finished_repeated: steps that were begun again though the log says that they have succeeded.
        effects_doubled: effects that agents had twice, for two keys.
        called_late: calls that reached an agent when the log said that the step had succeeded: of a worker that was stopped
            between its word that it calls and the call. They have no effect.
        called_again: calls with a key that was used before: attempts that follow another, or go on after a crash.
        resumed: seconds until each run that a killed worker held went on, the longest last.
        resumed_in_the_dark: the same where the database, or all orchestrators, were away meanwhile.
        stops: workers that were stopped for longer than their lease.
        taken_over: runs that were taken from those.
        late_writes: events that were written without the run's lease.
    """

    violations: Sequence[str]
    ended: Mapping[str, int]
    steps: int
    finished_repeated: int
    effects_doubled: int
    called_late: int
    called_again: int
    resumed: Sequence[float]
    resumed_in_the_dark: Sequence[float]
    stops: int
    taken_over: int
    late_writes: int


@dataclass(slots=True)
class _Found:
    violations: list[str] = field(default_factory=list)
    steps: int = 0
    repeated: int = 0
    doubled: int = 0
    late_calls: int = 0
    late_writes: int = 0
    resumed: list[float] = field(default_factory=list)
    dark: list[float] = field(default_factory=list)
    taken_over: int = 0


def check(runs: Sequence[Seen], evidence: Evidence) -> Report:
    """Goes over a round."""
    found = _Found()
    for seen in runs:
        logged = evidence.runs.get(seen.plan.id, Logged(events=(), holds=(), writes=()))
        problems = [
            *_end(seen),
            *_log(logged, found),
            *_fences(logged, found),
            *_late_calls(seen.plan.id, logged, evidence, found),
        ]
        found.violations += [f"{seen.plan.id}: {problem}" for problem in problems]
    found.violations += _effects(runs, evidence, found)
    for kill in evidence.kills:
        found.violations += _resumed(kill, evidence, found)
    for stop in evidence.stops:
        found.taken_over += _taken_over(stop, evidence)
    strange = evidence.runs.keys() - {seen.plan.id for seen in runs}
    found.violations += [f"{run}: nobody began it" for run in strange]
    states = [pb.RunState.Name(seen.ends[0].state)[10:].lower() for seen in runs if seen.ends]
    calls = evidence.remembered.calls.values()
    return Report(
        violations=found.violations,
        ended=dict(Counter(states)),
        steps=found.steps,
        finished_repeated=found.repeated,
        effects_doubled=found.doubled,
        called_late=found.late_calls,
        called_again=sum(len(times) - 1 for times in calls),
        resumed=sorted(round(each, 3) for each in found.resumed),
        resumed_in_the_dark=sorted(round(each, 3) for each in found.dark),
        stops=len(evidence.stops),
        taken_over=found.taken_over,
        late_writes=found.late_writes,
    )


def _end(seen: Seen) -> Iterator[str]:
    yield from seen.wrong
    if not seen.ends:
        yield "it has not ended"
        return
    end = seen.ends[0]
    if any(each.output != end.output or each.failure != end.failure for each in seen.ends):
        yield "it ended twice"
    if end.state != pb.RUN_STATE_SUCCEEDED:
        yield f"it ended {pb.RunState.Name(end.state)}: {end.failure}"
        return
    text = echo_pb2.SayResponse.FromString(end.output.binary).text
    if text != (right := expected(seen.plan).text):
        yield f"its result is {text!r} and has to be {right!r}"


def _log(logged: Logged, found: _Found) -> Iterator[str]:
    numbers = [event.number for event in logged.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"its events are not counted by one: {numbers}"
    ends = [event.number for event in logged.events if event.HasField("ended")]
    if ends != numbers[-1:]:
        yield f"its log ends at {ends} of {len(numbers)}"
    over: set[str] = set()
    for event in logged.events:
        if not event.HasField("step"):
            continue
        step = event.step
        if step.key in over:
            found.repeated += 1
            state = pb.StepState.Name(step.state)
            yield f"{step.key} had succeeded and is {state}, attempt {step.attempts}"
        elif step.state == pb.STEP_STATE_SUCCEEDED:
            over.add(step.key)
            found.steps += step.attempts > 0


def _fences(logged: Logged, found: _Found) -> Iterator[str]:
    owners = {hold.fence: hold.worker for hold in logged.holds if hold.taken}
    for write in logged.writes:
        if write.event > 1 and owners.get(write.fence) != write.worker:
            found.late_writes += 1
            yield f"event {write.event} is by {write.worker}, which had lost it"
    fences = [hold.fence for hold in logged.holds if hold.taken]
    if len(set(fences)) != len(fences):
        yield f"a fence was given twice: {fences}"


def _late_calls(run: str, logged: Logged, evidence: Evidence, found: _Found) -> Iterator[str]:
    for event in logged.events:
        if event.HasField("step") and event.step.state == pb.STEP_STATE_SUCCEEDED:
            at = event.time.seconds + event.time.nanos / 1e9
            calls = evidence.remembered.calls.get(f"{run}/{event.step.key}", ())
            late = sum(call > at + _FRESH for call in calls)
            found.late_calls += late
            if late and not evidence.stops:
                yield f"{event.step.key} had succeeded and was called"


def _effects(runs: Sequence[Seen], evidence: Evidence, found: _Found) -> Iterator[str]:
    keys: dict[str, list[str]] = defaultdict(list)
    for key, text in evidence.remembered.effects.items():
        keys[text].append(key)
    due: dict[str, str] = {}
    for seen in runs:
        due |= expected(seen.plan).effects
    for text, prefix in due.items():
        had = keys.pop(text, [])
        if len(had) > 1:
            found.doubled += 1
            yield f"an effect was had for {had}"
        elif not had:
            yield f"an effect was not had: {text}"
        elif had[0] != prefix and not had[0].startswith(f"{prefix}/"):
            yield f"an effect of {prefix} was had for {had[0]}"
    for text, had in keys.items():
        yield f"an effect that nobody asked for was had for {had}: {text}"


def _held(worker: str, at: float, evidence: Evidence) -> Iterator[tuple[str, Hold]]:
    """The runs that a worker held at a time."""
    blows = [kill.begin for kill in evidence.kills if kill.worker == worker and kill.begin < at]
    born = max(blows, default=0.0)  # what it took before is another's, who is dead
    for run, logged in evidence.runs.items():
        before = [hold for hold in logged.holds if hold.at < at]
        if before and before[-1].taken and before[-1].at > born:
            last = before[-1]
            if last.worker.rpartition(".")[0] == worker:
                yield run, last


def _resumed(kill: Blow, evidence: Evidence, found: _Found) -> Iterator[str]:
    most = evidence.lease + evidence.slack
    for run, hold in _held(kill.worker, kill.begin, evidence):
        logged = evidence.runs[run]
        after = [write.at for write in logged.writes if write.fence > hold.fence]
        if not after:
            later = [each.at for each in logged.holds if each.at > kill.begin and not each.taken]
            if not later:  # else it had said its last word, and the answer came when it was dead
                yield f"{run}: nobody went on with it after {kill.worker} was killed"
            continue
        took = min(after) - kill.begin
        taken = [each.at for each in logged.holds if each.taken and each.fence > hold.fence]
        dark = any(
            span.begin < kill.begin + most and span.end > kill.begin for span in evidence.dark
        )
        (found.dark if dark else found.resumed).append(took)
        if took >= most and not dark:
            waited = min(taken, default=0.0) - kill.begin
            yield (
                f"{run}: it lay idle for {took:.2f} s after {kill.worker} was killed, and was taken after {waited:.2f} s"
            )


def _taken_over(stop: Blow, evidence: Evidence) -> int:
    assert stop.end is not None
    return sum(
        any(
            hold.taken and hold.fence > held.fence and hold.at < stop.end
            for hold in evidence.runs[run].holds
        )
        for run, held in _held(stop.worker, stop.begin, evidence)
    )
