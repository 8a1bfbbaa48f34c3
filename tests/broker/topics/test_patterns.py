"""Patterns against a matcher too simple to be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft import rpc
from weft.broker.topics.patterns import Patterns, check_pattern

WORDS = st.sampled_from(["a", "b", "orders", "eu-1", "_x"])
TOPICS = st.lists(WORDS, min_size=1, max_size=5).map(".".join)


@st.composite
def patterns(draw: st.DrawFn) -> str:
    words = draw(st.lists(st.one_of(WORDS, st.just("*")), max_size=4))
    last = draw(st.one_of(WORDS, st.sampled_from(["*", ">"])))
    return ".".join([*words, last])


def matches(pattern: list[str], topic: list[str]) -> bool:
    """By the words of broker.proto."""
    if not pattern:
        return not topic
    if not topic:
        return False
    if pattern == [">"]:
        return True
    return pattern[0] in {"*", topic[0]} and matches(pattern[1:], topic[1:])


@given(st.lists(patterns(), max_size=20), st.lists(TOPICS, max_size=5), st.data())
def test_the_trie_finds_what_matches_also_after_removals(
    kept: list[str], topics: list[str], data: st.DataObject
) -> None:
    found: Patterns[int] = Patterns()
    for number, pattern in enumerate(kept):
        found.add(pattern, number)
    numbers = st.sets(st.sampled_from(range(len(kept)))) if kept else st.just(set[int]())
    removed = data.draw(numbers)
    for number in removed:
        found.remove(kept[number], number)
    for topic in topics:
        assert found.matching(topic) == {
            number
            for number, pattern in enumerate(kept)
            if number not in removed and matches(pattern.split("."), topic.split("."))
        }
    for number in set(range(len(kept))) - removed:
        found.remove(kept[number], number)
    assert not found


@given(patterns())
def test_every_pattern_is_one(pattern: str) -> None:
    check_pattern(pattern, "pattern")


@pytest.mark.parametrize(
    "pattern", ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a*", "**", "a.>>", "A", "a b", "é"]
)
def test_others_are_not(pattern: str) -> None:
    with pytest.raises(rpc.InvalidArgument) as refused:
        check_pattern(pattern, "subscription.pattern")
    assert refused.value.violations[0][0] == "subscription.pattern"
    with pytest.raises(rpc.InvalidArgument):
        check_pattern("a." * 128 + "a", "pattern")
