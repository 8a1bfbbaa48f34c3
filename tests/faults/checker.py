"""Whether the broker kept its promises: a pure function of what clients saw and of how the queues are in the end.

Clients write down a delivery when they see it. Frames may have waited in the socket of a stopped process, so a late
`begin` of an older attempt proves nothing; each rule says what it rests on.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.history import Event
from tests.faults.stories import NEVER, Attempt, Stories, Story

_REASONS_BY_COUNT = frozenset({"MAX_ATTEMPTS", "LEASE_EXPIRED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What `Describe` says of a queue."""

    queue: str
    depth: int = 0
    pending: int = 0
    blocked: int = 0
    delayed: int = 0
    data_loss: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A dead letter."""

    queue: str
    id: str
    reason: str
    attempts: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """How everything is after the drain."""

    queues: Sequence[QueueState] = ()
    dead: Sequence[Dead] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """What was set up. Times in ns.

    strict: nothing at all is delivered after its ack; else a marked redelivery is, for the ack may be lost with the
    primary that had it.
    told: every repeated publish is said to be one. A broker that lost its connection to Redis cannot know.
    loss: a loss is expected, for somebody replaced the data; it has to be reported.
    """

    visibility: int = 1_500_000_000
    window: int = 60_000_000_000
    max_attempts: dict[str, int] = field(default_factory=dict)
    strict: bool = True
    told: bool = True
    loss: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken promise, and the ids of the messages that show it."""

    rule: str
    text: str
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(slots=True)
class World:
    stories: Stories
    final: Final
    promises: Promises
    dead: dict[tuple[str, str], Dead]


@dataclass(slots=True)
class Report:
    """What was found."""

    violations: list[Violation]
    counts: Counter[str]
    events: Sequence[Event]

    def lines(self, violation: Violation) -> list[str]:
        """The lines of the histories that concern it."""
        ids = frozenset(violation.ids)
        return [str(event) for event in self.events if event.id in ids]


def check(events: Sequence[Event], final: Final, promises: Promises) -> Report:
    """All violations. `events` in the order of time."""
    stories = Stories(events)
    world = World(stories, final, promises, {(one.queue, one.id): one for one in final.dead})
    rules = _WITH_LOSS if promises.loss else RULES
    violations = [violation for rule in rules for violation in rule(world)]
    return Report(violations, _count(world), events)


def no_loss(world: World) -> Iterator[Violation]:
    """What was accepted was handled, or is dead. (After the drain nothing may be queued: `nothing_stuck`.)"""
    for story in world.stories:
        if (
            story.receipt == NEVER
            or story.finished < NEVER
            or (story.queue, story.id) in world.dead
        ):
            continue
        fate = (
            "never delivered"
            if not story.attempts
            else f"delivered {len(story.attempts)} times, never handled"
        )
        yield Violation(
            rule="loss", text=f"{story.queue} {story.id} was accepted, {fate}", ids=(story.id,)
        )


def order_per_key(world: World) -> Iterator[Violation]:
    """If b was first sent after a was accepted, a is first delivered before b.

    A dead message lets the key go on at a time that clients do not see, so it is left out.
    """
    for stories in _by_key(world):
        latest: Story | None = None  # the one sent last of those delivered so far
        delivered = [story for story in stories if story.begun < NEVER]
        for story in sorted(delivered, key=lambda story: story.begun):
            if latest is not None and story.receipt < latest.intent:
                yield Violation(
                    rule="order",
                    text=f"{latest.queue} key {latest.key}: {latest.id} was delivered before {story.id}",
                    ids=(story.id, latest.id),
                )
            if latest is None or story.intent > latest.intent:
                latest = story


def one_in_hand_per_key(world: World) -> Iterator[Violation]:
    """Of one key, the next message is delivered only after the one before was finished.

    Rests on attempts whose ack was confirmed (they held the key from begin to done) and on first deliveries.
    """
    for stories in _by_key(world):
        spans = sorted(
            (attempt.begin, attempt.done, story.id)
            for story in stories
            for attempt in story.acked
            if attempt.done < NEVER
        )
        for (_, done, first), (begin, _, second) in itertools.pairwise(spans):
            if begin < done and first != second:
                yield _overlap(stories[0], first, second)
        busy, holder = 0, ""
        for story in sorted(stories, key=lambda story: story.begun):
            if story.begun < busy:
                yield _overlap(story, holder, story.id)
            if story.finished > busy and story.begun < NEVER:
                busy, holder = story.finished, story.id


def _overlap(story: Story, first: str, second: str) -> Violation:
    return Violation(
        rule="overlap",
        text=f"{story.queue} key {story.key}: {second} was delivered while {first} was in hand",
        ids=(first, second),
    )


def no_delivery_after_ack(world: World) -> Iterator[Violation]:
    """After a confirmed ack nothing is delivered but frames of older attempts that had been on their way."""
    for story in world.stories:
        if story.requeued:
            continue
        strict, acked = world.promises.strict, story.acked
        if strict and len(acked) > 1:
            yield _of(story, "after-ack", f"was acknowledged {len(acked)} times")
        for last in acked:
            for attempt in story.attempts.values():
                marked = attempt.number > last.number
                if attempt.begin > last.acked and (
                    attempt.number == last.number or (marked and strict)
                ):
                    yield _of(
                        story,
                        "after-ack",
                        f"attempt {attempt.number} came after attempt {last.number} was acknowledged",
                    )


def one_hand_while_extended(world: World) -> Iterator[Violation]:
    """From the confirmation of an extension until the visibility timeout after it was sent, nobody else gets it."""
    for story in world.stories:
        if found := next(_second_hands(story, world.promises.visibility), None):
            holder, other = found
            yield _of(
                story, "two-hands", f"{other.who} got it while {holder.who} held an extended lease"
            )


def _second_hands(story: Story, visibility: int) -> Iterator[tuple[Attempt, Attempt]]:
    for holder in story.attempts.values():
        for confirmed, sent in holder.extended:
            until = min(sent + visibility, holder.nack, holder.reject, holder.acked)
            for other in _later(story, holder):
                if confirmed < other.begin < until:
                    yield holder, other


def _later(story: Story, holder: Attempt) -> Iterator[Attempt]:
    for attempt in story.attempts.values():
        if attempt is not holder and attempt.number >= holder.number:
            yield attempt


def each_attempt_once(world: World) -> Iterator[Violation]:
    """A lease is delivered once; a message has one lease per attempt, unless that was given back unused."""
    for story in world.stories:
        for lease, _, who in story.again:
            yield _of(story, "twice", f"lease {lease} was delivered again, to {who}")
        if story.requeued:
            continue
        numbers = Counter(one.number for one in story.attempts.values() if not one.unused)
        for number, count in numbers.items():
            if count > 1 and number > 1:
                yield _of(story, "twice", f"attempt {number} was made {count} times")


def dedupe(world: World) -> Iterator[Violation]:
    """However often it was published within the window, a message appears once as attempt 1."""
    for story in world.stories:
        firsts = [one for one in story.attempts.values() if one.number == 1 and not one.unused]
        if len(firsts) > 1 and not story.requeued:
            yield _of(story, "dedupe", f"is attempt 1 {len(firsts)} times")
        for sent, _, known in story.repeats:
            if world.promises.told and not known and sent - story.receipt < world.promises.window:
                yield _of(story, "dedupe", "was published again and not recognised")


def dead_with_reason(world: World) -> Iterator[Violation]:
    """A dead letter has a reason that its history bears out, and was not acknowledged."""
    seen: set[tuple[str, str]] = set()
    for dead in world.final.dead:
        story = world.stories.get(dead.queue, dead.id)
        if (dead.queue, dead.id) in seen:
            yield Violation(
                rule="dead", text=f"{dead.queue} {dead.id} is dead twice", ids=(dead.id,)
            )
        seen.add((dead.queue, dead.id))
        if wrong := _wrong_with(dead, story, world.promises):
            yield Violation(rule="dead", text=f"{dead.queue} {dead.id} {wrong}", ids=(dead.id,))


def _wrong_with(dead: Dead, story: Story | None, promises: Promises) -> str:
    if not dead.reason:
        return "is dead without a reason"
    if story is None or story.intent == NEVER:
        return "is dead and was never published"
    if story.acked and not story.requeued:
        return f"is dead ({dead.reason}) and was acknowledged"
    return _not_borne_out(dead, story, promises)


def _not_borne_out(dead: Dead, story: Story, promises: Promises) -> str:
    if dead.reason in _REASONS_BY_COUNT:
        most = promises.max_attempts.get(dead.queue, 0)
        if dead.attempts < most:
            return f"is dead ({dead.reason}) after {dead.attempts} attempts of {most}"
    elif dead.reason == "EXPIRED":
        if not story.may_expire:
            return "is dead (EXPIRED) and has no expiry"
    elif all(attempt.reject == NEVER for attempt in story.attempts.values()):
        return f"is dead ({dead.reason}) and nobody rejected it"
    return ""


def nothing_stuck(world: World) -> Iterator[Violation]:
    """After the drain every queue is empty."""
    for state in world.final.queues:
        kept = {
            "depth": state.depth,
            "pending": state.pending,
            "blocked": state.blocked,
            "delayed": state.delayed,
        }
        if any(kept.values()):
            yield Violation(rule="stuck", text=f"{state.queue} keeps {kept}")


def no_other_loss_reported(world: World) -> Iterator[Violation]:
    """`Describe` reports no loss where there is none."""
    for state in world.final.queues:
        if state.data_loss:
            yield Violation(rule="data-loss", text=f"{state.queue} reports {state.data_loss!r}")


def loss_reported(world: World) -> Iterator[Violation]:
    """`Describe` reports the loss of every queue that has one."""
    lost = Counter(
        story.queue
        for story in world.stories
        if story.receipt < NEVER
        and story.finished == NEVER
        and (story.queue, story.id) not in world.dead
    )
    reported = {state.queue for state in world.final.queues if state.data_loss}
    for queue, count in lost.items():
        if queue not in reported:
            yield Violation(
                rule="silent-loss", text=f"{queue} lost {count} messages and says nothing"
            )
    if not reported:
        yield Violation(rule="silent-loss", text="older data was put in place and no queue says so")


def one_reply(world: World) -> Iterator[Violation]:
    """A request has one outcome, however often it is made, and it is what a handler answered."""
    for story in world.stories:
        if not story.asked:
            continue
        if not story.answers and (story.queue, story.id) not in world.dead:
            yield _of(story, "reply", "was never answered")
        if len(set(story.answers)) > 1:
            yield _of(story, "reply", f"has different answers: {sorted(set(story.answers))}")
        said = {attempt.reply for attempt in story.attempts.values()}
        for answer in set(story.answers) - said:
            yield _of(story, "reply", f"was answered {answer!r}, which no handler said")


def nothing_invented(world: World) -> Iterator[Violation]:
    """What is delivered was published, to that queue, with that content."""
    for story in world.stories:
        if story.attempts and story.intent == NEVER:
            yield _of(story, "invented", "was delivered and never published")
        if story.corrupt:
            yield _of(story, "invented", "was delivered with another content")
    for event in world.stories.strays:
        yield Violation(rule="history", text=f"{event} has no begin", ids=(event.id,))


def not_early(world: World) -> Iterator[Violation]:
    """A delayed message is not delivered before its time."""
    for story in world.stories:
        if story.begun < story.due:
            yield _of(
                story, "early", f"was delivered {(story.due - story.begun) / 1e6:.1f} ms early"
            )


def not_refused(world: World) -> Iterator[Violation]:
    """Nothing that is right is refused for good; only what expired before it could be sent."""
    for story in world.stories:
        if story.refused and not story.may_expire:
            yield _of(story, "refused", f"was refused: {story.refused}")


def _of(story: Story, rule: str, text: str) -> Violation:
    return Violation(rule=rule, text=f"{story.queue} {story.id} {text}", ids=(story.id,))


def _by_key(world: World) -> Iterator[list[Story]]:
    groups: defaultdict[tuple[str, str], list[Story]] = defaultdict(list)
    for story in world.stories:
        if story.key and (story.queue, story.id) not in world.dead and not story.requeued:
            groups[story.queue, story.key].append(story)
    yield from groups.values()


def _count(world: World) -> Counter[str]:
    counts: Counter[str] = Counter()
    for story in world.stories:
        counts["published"] += story.intent < NEVER
        counts["accepted"] += story.receipt < NEVER
        counts["sent again"] += max(0, story.sends - 1) + len(story.repeats)
        counts["deliveries"] += len(story.attempts)
        counts["redeliveries"] += sum(attempt.number > 1 for attempt in story.attempts.values())
        counts["handled"] += story.finished < NEVER
        counts["acknowledged"] += bool(story.acked)
        counts["extensions"] += sum(len(attempt.extended) for attempt in story.attempts.values())
        counts["requests"] += story.asked
    counts["dead"] = len(world.dead)
    return counts


Rule = Callable[[World], Iterator[Violation]]
RULES: tuple[Rule, ...] = (
    no_loss,
    order_per_key,
    one_in_hand_per_key,
    no_delivery_after_ack,
    one_hand_while_extended,
    each_attempt_once,
    dedupe,
    dead_with_reason,
    nothing_stuck,
    no_other_loss_reported,
    one_reply,
    nothing_invented,
    not_early,
    not_refused,
)
_WITH_LOSS: tuple[Rule, ...] = (loss_reported, nothing_stuck, nothing_invented, not_early)
