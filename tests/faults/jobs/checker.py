"""Whether what was promised was kept (docs/jobs.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.jobs.caller import Seen
from tests.faults.jobs.plan import Kind
from tests.faults.jobs.receiver import Delivery

_UNKNOWN = "JOB_OUTCOME_UNKNOWN"
_MOST_LOSSES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found."""

    violations: Sequence[str]
    ended: Mapping[str, int]
    """Jobs by state."""
    unknown: int
    """Those whose outcome is not known: with effects, or given up after five losses."""
    again: int
    """Jobs that were begun again since their gateway was lost."""
    called_again: int
    """Jobs that may be called twice, and were."""
    deliveries: int
    delivered_again: int


def check(jobs: Sequence[Seen], calls: Sequence[str], deliveries: Sequence[Delivery]) -> Report:
    """Goes over a round."""
    made = Counter(calls)
    told: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        told[delivery.job].append(delivery)
    violations = []
    for seen in jobs:
        found = [*_end(seen), *_outcome(seen, made[seen.plan.text]), *_told(seen, told[seen.id])]
        violations += [f"{seen.plan.text} ({seen.id}): {problem}" for problem in found]
    strange = told.keys() - {seen.id for seen in jobs}
    violations += [f"a webhook told of {job}, which nobody began" for job in strange]
    ended = [seen for seen in jobs if seen.ends]
    taken = Counter(delivery.id for delivery in deliveries if delivery.taken)
    return Report(
        violations=violations,
        ended=dict(Counter(str(seen.ends[0]["state"]) for seen in ended)),
        unknown=sum(_reason(seen.ends[0]) == _UNKNOWN for seen in ended),
        again=sum(seen.ends[0].get("losses", 0) > 0 for seen in ended),
        called_again=sum(made[seen.plan.text] > 1 for seen in jobs),
        deliveries=len(deliveries),
        delivered_again=sum(number > 1 for number in taken.values()),
    )


def _end(seen: Seen) -> Iterator[str]:
    yield from seen.wrong
    if len(seen.ids) != 1:
        yield f"its key was told {len(seen.ids)} jobs"
    if not seen.ends:
        yield "it has not ended"
    elif any(end != seen.ends[0] for end in seen.ends):
        yield f"it ended twice: {seen.ends}"


def _outcome(seen: Seen, calls: int) -> Iterator[str]:
    plan = seen.plan
    if plan.kind is Kind.ONCE and calls > 1:
        yield f"it has effects and was called {calls} times"
    if not seen.ends:
        return
    job = seen.ends[0]
    match job["state"]:
        case "JOB_STATE_SUCCEEDED":
            if plan.fails is not None:
                yield "it succeeded, and should have failed"
            elif not calls:
                yield "it succeeded, and was never called"
            else:
                yield from _result(seen, job)
        case "JOB_STATE_FAILED":
            code, reason = job["error"]["code"], _reason(job)
            # One that may be called twice is given up when its gateway was lost too often.
            given_up = plan.kind is Kind.ONCE or job.get("losses", 0) >= _MOST_LOSSES
            unknown = given_up and reason == _UNKNOWN
            if not unknown and (plan.fails is None or code != plan.fails.name):
                yield f"it failed with {code} ({reason}): {job['error'].get('message')}"
        case _ if not seen.cancelled:
            yield "it is cancelled, and nobody asked for it"
    kept = dict(seen.kept)
    if any(number in kept and kept[number] != text for number, text in seen.live.items()):
        yield "a message was shown live that is not the one that is kept"


def _result(seen: Seen, job: Mapping[str, Any]) -> Iterator[str]:
    plan = seen.plan
    if plan.kind is not Kind.REPEAT:
        answer = job["response"]["json"]
        said = answer["said"] if plan.kind is Kind.ONCE else answer
        if said["text"] != plan.text:
            yield f"its result is another's: {said}"
        return
    texts = [(text.get("number", 0), text["text"]) for _, text in seen.kept]
    if texts != [(number, plan.text) for number in range(plan.messages)]:
        yield f"its stream of {plan.messages} is {seen.kept}"
    numbers = [number for number, _ in seen.kept]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"its messages are not counted by one: {numbers}"


def _told(seen: Seen, deliveries: Sequence[Delivery]) -> Iterator[str]:
    if not any(delivery.taken for delivery in deliveries):
        yield f"its webhook never arrived ({len(deliveries)} attempts)"
    if not all(delivery.verified for delivery in deliveries):
        yield "a webhook does not verify"
    if seen.ends and {each.state for each in deliveries} - {seen.ends[0]["state"]}:
        yield "a webhook told another end"
    if len({delivery.id for delivery in deliveries}) > 1:
        yield "two ends were told"


def _reason(job: Mapping[str, Any]) -> str:
    return str(job.get("error", {}).get("reason", ""))
