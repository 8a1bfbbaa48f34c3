from __future__ import annotations

from weft.agents.orchestrator.engine.bells import Feed


def test_a_feed_brings_what_was_stored_and_keeps_little_for_whoever_is_slow() -> None:
    feed = Feed()
    feed.bring(2, [b"b", b"c"])
    assert feed.behind(0) == []
    assert feed.behind(1) == [b"b", b"c"]
    large = bytes(300_000)
    for number in range(4, 9):
        feed.bring(number, [large])
    assert feed.behind(3) == []  # they are in the log
    assert feed.behind(7) == [large]
