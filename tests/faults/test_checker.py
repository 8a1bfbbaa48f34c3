"""Each rule of the checker on hand-made histories: one that keeps it, and some that break it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.faults.checker import Dead, Final, Promises, QueueState, check
from tests.faults.history import Event, Writer, read

PROMISES = Promises(visibility=100, window=1_000, max_attempts={"q": 3})


class Script:
    """A history in a few words: each call is one event, one ns after the one before."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.keys: dict[str, str] = {}

    def __call__(
        self, kind: str, name: str, *, at: int | None = None, who: str = "c", n: int = 0, **columns
    ) -> Script:
        last = self.events[-1].at if self.events else 0
        columns.setdefault("lease", f"{name}/{n}" if n else "")
        columns.setdefault("key", self.keys.get(name, ""))
        self.keys[name] = columns["key"]
        columns.setdefault("queue", "q")
        event = Event(kind, last + 1 if at is None else at, id=name, who=who, attempt=n, **columns)
        self.events.append(event)
        return self

    def publish(self, name: str, **columns) -> Script:
        return self("intent", name, who="p", **columns)("receipt", name, who="p")

    def handle(self, name: str, n: int = 1, who: str = "c") -> Script:
        return self("begin", name, n=n, who=who)("done", name, n=n, who=who)(
            "acked", name, n=n, who=who
        )


def broken(script: Script, promises: Promises = PROMISES, **final) -> set[str]:
    """The rules that it breaks."""
    events = sorted(script.events, key=lambda event: event.at)
    return {one.rule for one in check(events, Final(**final), promises).violations}


@pytest.fixture
def script() -> Script:
    return Script()


def test_a_clean_history(script: Script) -> None:
    script.publish("a", key="k").publish("b", key="k").publish("c")
    script.handle("a").handle("c").handle("b")
    assert not broken(script)


def test_an_accepted_message_that_never_came(script: Script) -> None:
    assert broken(script.publish("a")) == {"loss"}


def test_what_was_not_accepted_may_be_lost(script: Script) -> None:
    assert not broken(script("intent", "a"))


def test_an_accepted_message_that_nobody_got_done(script: Script) -> None:
    script.publish("a")("begin", "a", n=1)("nack", "a", n=1)
    assert broken(script) == {"loss"}


def test_a_topic_message_that_misses_one_queue(script: Script) -> None:
    script.publish("a", queue="x,y")
    script("begin", "a", n=1, queue="x")("done", "a", n=1, queue="x")("acked", "a", n=1, queue="x")
    assert broken(script) == {"loss"}
    script("begin", "a", n=1, queue="y")("done", "a", n=1, queue="y")
    assert not broken(script)


def test_order_of_a_key(script: Script) -> None:
    script.publish("a", key="k").publish("b", key="k")
    script.handle("b").handle("a")
    assert broken(script) == {"order"}


def test_messages_in_flight_together_have_no_order(script: Script) -> None:
    script("intent", "a", key="k")("intent", "b", key="k")("receipt", "a")("receipt", "b")
    assert not broken(script.handle("b").handle("a"))


def test_keys_have_no_order_among_each_other(script: Script) -> None:
    script.publish("a", key="k").publish("b", key="l")
    assert not broken(script.handle("b").handle("a"))


def test_two_of_a_key_in_hand(script: Script) -> None:
    script.publish("a", key="k").publish("b", key="k")
    script("begin", "a", n=1)("begin", "b", n=1, who="d")("done", "a", n=1)(
        "done", "b", n=1, who="d"
    )
    script("acked", "a", n=1)("acked", "b", n=1)
    assert broken(script) == {"overlap"}


def test_the_next_of_a_key_during_the_second_attempt_of_the_first(script: Script) -> None:
    script.publish("a", key="k").publish("b", key="k")
    script("begin", "a", n=1)("done", "a", n=1)  # and its ack is lost
    script("begin", "a", n=2, who="d").handle("b", who="e")("done", "a", n=2)("acked", "a", n=2)
    assert broken(script) == {"overlap"}


def test_a_late_begin_of_an_older_attempt_overlaps_nothing(script: Script) -> None:
    script.publish("a", key="k").publish("b", key="k")
    script.handle("a", n=2)("begin", "b", n=1)("begin", "a", n=1, who="stopped")("done", "b", n=1)
    script("done", "a", n=1, who="stopped")("lost", "a", n=1, who="stopped")("acked", "b", n=1)
    assert not broken(script)


def test_delivery_after_ack(script: Script) -> None:
    script.publish("a").handle("a")("begin", "a", n=2, who="d")
    assert broken(script) == {"after-ack"}


def test_marked_delivery_after_ack_where_acks_may_be_lost(script: Script) -> None:
    script.publish("a").handle("a")("begin", "a", n=2, who="d")
    assert not broken(script, Promises(strict=False))
    script("begin", "a", n=1, lease="other")
    assert "after-ack" in broken(script, Promises(strict=False))


def test_a_late_frame_of_an_older_attempt_after_the_ack(script: Script) -> None:
    script.publish("a").handle("a", n=2)("begin", "a", n=1, who="stopped")
    assert not broken(script)


def test_two_acknowledgements(script: Script) -> None:
    script.publish("a").handle("a", n=1)
    script.events.insert(2, Event("begin", 3, "q", "a", attempt=2, lease="a/2", who="d"))
    script.events.insert(3, Event("done", 3, "q", "a", attempt=2, lease="a/2", who="d"))
    script("acked", "a", n=2, who="d")
    assert broken(script) == {"after-ack"}


def test_two_hands_while_extended(script: Script) -> None:
    script.publish("a")("begin", "a", n=1, at=10)("extend", "a", n=1, at=90)
    script("extended", "a", n=1, at=95, note="90")("begin", "a", n=2, who="d", at=150)
    script("done", "a", n=2, who="d")("acked", "a", n=2, who="d")
    assert broken(script) == {"two-hands"}


@pytest.mark.parametrize("begin", [94, 191])
def test_another_hand_before_or_after_the_extension(script: Script, begin: int) -> None:
    script.publish("a")("begin", "a", n=1, at=10)("extend", "a", n=1, at=90)
    script("begin", "a", n=2, who="d", at=begin)("extended", "a", n=1, at=95, note="90")
    script("done", "a", n=2, who="d", at=200)("acked", "a", n=2, who="d")
    assert not broken(script)


def test_a_lease_that_was_given_back_binds_nobody(script: Script) -> None:
    script.publish("a")("begin", "a", n=1, at=10)("extended", "a", n=1, at=95, note="90")
    script("nack", "a", n=1, at=100).handle("a", n=2, who="d")
    assert not broken(script)


def test_a_lease_delivered_twice(script: Script) -> None:
    script.publish("a")("begin", "a", n=1)("begin", "a", n=1, who="d")("done", "a", n=1)
    assert broken(script) == {"twice"}


def test_an_attempt_made_twice(script: Script) -> None:
    script.publish("a")("begin", "a", n=2)("begin", "a", n=2, who="d", lease="other")(
        "done", "a", n=2
    )
    assert broken(script) == {"twice"}


def test_a_message_stored_twice(script: Script) -> None:
    script("intent", "a")("resend", "a")("receipt", "a")
    script("begin", "a", n=1)("begin", "a", n=1, lease="other")("done", "a", n=1)
    assert broken(script) == {"dedupe"}


def test_an_unused_attempt_does_not_count(script: Script) -> None:
    script.publish("a")("begin", "a", n=1)("nack", "a", n=1, note="unused")
    script("begin", "a", n=1, lease="other")("done", "a", n=1, lease="other")
    assert not broken(script)


def test_a_repeated_publish_that_is_not_recognised(script: Script) -> None:
    script.publish("a").handle("a")("repeat", "a")("repeated", "a")
    assert broken(script) == {"dedupe"}


def test_a_repeated_publish_that_is_recognised_or_too_late(script: Script) -> None:
    script.publish("a").handle("a")("repeat", "a")("repeated", "a", note="duplicate")
    script("repeat", "a", at=2_000)("repeated", "a")
    assert not broken(script)


def dead(name: str = "a", reason: str = "MAX_ATTEMPTS", attempts: int = 3) -> Dead:
    return Dead(queue="q", id=name, reason=reason, attempts=attempts)


def test_dead_with_a_reason(script: Script) -> None:
    script.publish("a").publish("b", note="expires=1").publish("c")
    script("begin", "c", n=1)("reject", "c", n=1, note="BAD")
    assert not broken(script, dead=[dead(), dead("b", "EXPIRED", 0), dead("c", "BAD", 1)])


@pytest.mark.parametrize(
    "wrong",
    [
        dead(reason=""),
        dead(attempts=2),
        dead(reason="EXPIRED"),
        dead(reason="BAD"),
        dead("unknown"),
    ],
)
def test_dead_with_no_good_reason(script: Script, wrong: Dead) -> None:
    assert "dead" in broken(script.publish("a"), dead=[wrong])


def test_dead_and_acknowledged(script: Script) -> None:
    assert broken(script.publish("a").handle("a"), dead=[dead()]) == {"dead"}


def test_dead_twice(script: Script) -> None:
    assert broken(script.publish("a"), dead=[dead(), dead()]) == {"dead"}


@pytest.mark.parametrize("kept", ["depth", "pending", "blocked", "delayed"])
def test_something_is_stuck(script: Script, kept: str) -> None:
    assert broken(script, queues=[QueueState(queue="q", **{kept: 1})]) == {"stuck"}
    assert not broken(script, queues=[QueueState(queue="q")])


def test_a_loss_that_is_none(script: Script) -> None:
    assert broken(script, queues=[QueueState(queue="q", data_loss="much")]) == {"data-loss"}


def test_a_loss_has_to_be_reported(script: Script) -> None:
    script.publish("a")
    older = Promises(loss=True)
    assert broken(script, older, queues=[QueueState(queue="q")]) == {"silent-loss"}
    assert not broken(script, older, queues=[QueueState(queue="q", data_loss="some")])


def test_a_request_with_one_outcome(script: Script) -> None:
    script("ask", "a")("begin", "a", n=1)("done", "a", n=1, note="42")("acked", "a", n=1)
    assert broken(script) == {"reply"}
    script("answer", "a", note="42")("ask", "a")("answer", "a", note="42")
    assert not broken(script)


def test_a_request_with_two_outcomes(script: Script) -> None:
    script("ask", "a")("begin", "a", n=1)("done", "a", n=1, note="42")
    script("begin", "a", n=2)("done", "a", n=2, note="43")
    assert broken(script("answer", "a", note="42")("answer", "a", note="43")) == {"reply"}


def test_an_answer_that_nobody_gave(script: Script) -> None:
    script("ask", "a")("begin", "a", n=1)("done", "a", n=1, note="42")
    assert broken(script("answer", "a", note="41")) == {"reply"}


def test_a_message_that_nobody_sent(script: Script) -> None:
    assert broken(script.handle("a")) == {"invented"}


def test_another_content(script: Script) -> None:
    assert broken(script.publish("a").handle("a")("corrupt", "a", n=1)) == {"invented"}


def test_a_delayed_message_that_comes_early(script: Script) -> None:
    script.publish("a", note="due=500")("begin", "a", n=1, at=499)("done", "a", n=1)
    assert broken(script) == {"early"}


def test_a_delayed_message_in_time(script: Script) -> None:
    script.publish("a", note="due=500")("begin", "a", n=1, at=500)("done", "a", n=1)
    assert not broken(script)


def test_a_refusal(script: Script) -> None:
    assert broken(script("intent", "a")("refused", "a", note="INVALID_ARGUMENT")) == {"refused"}


def test_a_report_shows_the_lines_of_a_violation(script: Script) -> None:
    report = check(script.publish("a").publish("b").handle("b").events, Final(), PROMISES)
    [lines] = [report.lines(violation) for violation in report.violations]
    assert len(lines) == 2
    assert all(" a" in line for line in lines)


def test_histories_of_processes_are_one_in_the_order_of_time(tmp_path: Path) -> None:
    first, second = Writer(tmp_path / "p.0.log"), Writer(tmp_path / "c.3.log")
    first.note("intent", "q", "a", "k")
    first.write()
    second.note("begin", "q", "a", "k", 1, "1:2", "x")
    second.close()
    first.note("receipt", "q", "a")
    first.close()
    events = read(tmp_path.glob("*.log"))
    assert [event.kind for event in events] == ["intent", "begin", "receipt"]
    assert [event.who for event in events] == ["p", "c", "p"]
    assert events[1][2:8] == ("q", "a", "k", 1, "1:2", "x")


def test_a_torn_last_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "p.0.log"
    writer = Writer(path)
    for number in range(2):
        writer.note("intent", "q", f"m{number}")
    writer.close()
    path.write_bytes(path.read_bytes()[:-3])
    assert [event.id for event in read([path])] == ["m0"]


def test_any_order_of_clean_keys_is_clean(script: Script) -> None:
    choice = random.Random(7)
    waiting = {f"k{key}": [f"k{key}-{n}" for n in range(20)] for key in range(10)}
    for key, names in waiting.items():
        for name in names:
            script.publish(name, key=key)
    while waiting:
        key = choice.choice(sorted(waiting))
        script.handle(waiting[key].pop(0), n=choice.randint(1, 3))
        if not waiting[key]:
            del waiting[key]
    assert not broken(script)
