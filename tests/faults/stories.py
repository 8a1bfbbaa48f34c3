"""What happened to each message, put together from the histories of all clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.faults.history import Event

NEVER = 1 << 62


@dataclass(slots=True)
class Attempt:
    """One lease: who got it, and what it did with it. Times in ns; NEVER: it did not."""

    lease: str
    number: int
    who: str
    begin: int
    done: int = NEVER
    acked: int = NEVER
    nack: int = NEVER
    reject: int = NEVER
    lost: int = NEVER
    unused: bool = False
    reply: str = ""
    # Times at which the broker certainly held the lease for it, as (confirmed, sent) of each extension.
    extended: list[tuple[int, int]] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """When its consumer was through with the message."""
        return min(self.done, self.reject)


@dataclass(slots=True)
class Story:
    """One message in one queue."""

    queue: str
    id: str
    key: str = ""
    intent: int = NEVER
    due: int = 0
    may_expire: bool = False
    asked: bool = False
    receipt: int = NEVER
    receipt_duplicate: bool = False
    refused: str = ""
    # (sent, answered, whether the broker knew it) of each publish after its receipt.
    repeats: list[tuple[int, int, bool]] = field(default_factory=list)
    repeat_sent: int = 0
    sends: int = 0
    attempts: dict[str, Attempt] = field(default_factory=dict)
    # Deliveries of a lease that had been delivered before: (lease, when, who).
    again: list[tuple[str, int, str]] = field(default_factory=list)
    corrupt: bool = False
    requeued: bool = False
    answers: list[str] = field(default_factory=list)

    @property
    def begun(self) -> int:
        """When it was first delivered."""
        return min((attempt.begin for attempt in self.attempts.values()), default=NEVER)

    @property
    def finished(self) -> int:
        """When somebody was first through with it."""
        return min((attempt.finished for attempt in self.attempts.values()), default=NEVER)

    @property
    def acked(self) -> list[Attempt]:
        """Attempts whose acknowledgement was confirmed."""
        return [attempt for attempt in self.attempts.values() if attempt.acked < NEVER]


class Stories:
    """All messages, by queue and id."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._by_name: dict[tuple[str, str], Story] = {}
        self._queues: dict[str, tuple[str, ...]] = {}  # by id: those its intent named
        # Events of attempts whose begin nobody wrote down.
        self.strays: list[Event] = []
        for event in events:
            getattr(self, f"_on_{event.kind}")(event)

    def __iter__(self) -> Iterator[Story]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, queue: str, id: str) -> Story | None:  # noqa: A002 the column's name
        return self._by_name.get((queue, id))

    def _story(self, event: Event) -> Story:
        name = event.queue, event.id
        story = self._by_name.get(name)
        if story is None:
            story = self._by_name[name] = Story(event.queue, event.id, event.key)
        return story

    def _targets(self, event: Event) -> list[Story]:
        return [
            self._by_name[queue, event.id]
            for queue in self._queues.get(event.id, ())
            if (queue, event.id) in self._by_name
        ]

    def _on_intent(self, event: Event) -> None:
        queues = self._queues[event.id] = tuple(event.queue.split(","))
        for queue in queues:
            story = self._story(event._replace(queue=queue))
            story.intent, story.sends = event.at, 1
            name, _, value = event.note.partition("=")
            if name == "due":
                story.due = int(value)
            elif name == "expires":
                story.may_expire = True

    def _on_ask(self, event: Event) -> None:
        known = self._by_name.get((event.queue, event.id))
        if known is None or known.intent == NEVER:
            self._on_intent(event)
        for story in self._targets(event):
            story.asked = True

    def _on_resend(self, event: Event) -> None:
        for story in self._targets(event):
            story.sends += 1

    def _on_receipt(self, event: Event) -> None:
        for story in self._targets(event):
            if event.at < story.receipt:
                story.receipt = event.at
                story.receipt_duplicate = event.note == "duplicate"

    def _on_refused(self, event: Event) -> None:
        for story in self._targets(event):
            story.refused = event.note

    def _on_repeat(self, event: Event) -> None:
        for story in self._targets(event):
            story.repeat_sent = event.at

    def _on_repeated(self, event: Event) -> None:
        for story in self._targets(event):
            story.repeats.append((story.repeat_sent, event.at, event.note == "duplicate"))

    def _on_answer(self, event: Event) -> None:
        for story in self._targets(event):
            story.answers.append(event.note)

    def _on_begin(self, event: Event) -> None:
        story = self._story(event)
        if event.lease in story.attempts:
            story.again.append((event.lease, event.at, event.who))
        else:
            story.attempts[event.lease] = Attempt(event.lease, event.attempt, event.who, event.at)

    def _attempt(self, event: Event) -> Attempt:
        attempt = self._story(event).attempts.get(event.lease)
        if attempt is None:
            self.strays.append(event)
            return Attempt(event.lease, event.attempt, event.who, event.at)
        return attempt

    def _on_corrupt(self, event: Event) -> None:
        self._story(event).corrupt = True

    def _on_done(self, event: Event) -> None:
        attempt = self._attempt(event)
        attempt.done = min(attempt.done, event.at)
        attempt.reply = event.note

    def _on_acked(self, event: Event) -> None:
        attempt = self._attempt(event)
        attempt.acked = min(attempt.acked, event.at)

    def _on_lost(self, event: Event) -> None:
        self._attempt(event).lost = event.at

    def _on_nack(self, event: Event) -> None:
        attempt = self._attempt(event)
        attempt.nack, attempt.unused = event.at, event.note == "unused"

    def _on_reject(self, event: Event) -> None:
        self._attempt(event).reject = event.at

    def _on_extend(self, event: Event) -> None:
        pass

    def _on_extended(self, event: Event) -> None:
        self._attempt(event).extended.append((event.at, int(event.note)))

    def _on_requeue(self, event: Event) -> None:
        self._story(event).requeued = True
