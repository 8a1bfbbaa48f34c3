from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.agents.support.prose import bare, joined, marks, sentences, stem, terms


def test_a_sentence_keeps_the_citations_that_follow_it() -> None:
    text = "It takes 5 days. [1] It costs 1.50 euros. [2][3] Why? [1]"
    assert sentences(text) == ("It takes 5 days. [1]", "It costs 1.50 euros. [2][3]", "Why? [1]")
    assert marks("It costs 1.50 euros. [2][3]") == (2, 3)
    assert bare("It costs 1.50 euros. [2][3]") == "It costs 1.50 euros."


@pytest.mark.parametrize(
    "whole",
    [
        "Use e.g. this one.",
        "Send it before 16:00 to Mr. Smith.",
        "It costs approx. 5 euros.",
        'Choose Cards, then "Freeze. now" in the app.',
    ],
)
def test_not_every_full_stop_ends_a_sentence(whole: str) -> None:
    assert sentences(whole) == (whole,)


def test_a_line_end_ends_a_sentence() -> None:
    assert sentences("First\nSecond one. Third") == ("First", "Second one.", "Third")


PIECES = [
    "It takes 5 days. [1]",
    "it is late [2]",
    "Pay in euros, e.g. [1]",
    "Why? [2][3]",
    "No",
    "5.",
]


@given(st.lists(st.sampled_from(PIECES)))
def test_what_is_joined_is_cut_as_it_was(cut: list[str]) -> None:
    assert sentences(joined(cut)) == tuple(cut)


def test_sentences_are_joined_in_a_line_where_they_can_be() -> None:
    assert joined(["One. [1]", "Two. [2]", "three. [3]", "Four."]) == (
        "One. [1] Two. [2]\nthree. [3] Four."
    )


@pytest.mark.timeout(10)
def test_what_never_ends_a_sentence_takes_no_longer_than_others() -> None:
    whole = "a. " * 40_000
    assert sentences(whole) == (whole.strip(),)


@given(st.text())
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@given(st.lists(st.sampled_from(["It is on its way.", "Pay 1.50 euros.", "Why?"]), min_size=1))
def test_cutting_a_composed_text_gives_the_sentences_it_was_made_of(parts: list[str]) -> None:
    cited = [f"{part} [{number}]" for number, part in enumerate(parts, start=1)]
    assert sentences(" ".join(cited)) == tuple(cited)


@pytest.mark.parametrize(
    "family",
    [
        ("arrive", "arrives", "arrived", "arriving"),
        ("verify", "verifies", "verified", "verification"),
        ("activate", "activated", "activation"),
        ("pay", "payment", "payments"),
        ("replace", "replacement", "replaced"),
        ("withdraw", "withdrawal", "withdrawals"),
        ("cancel", "cancelled", "cancellation"),
    ],
)
def test_inflections_share_a_stem(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


def test_terms_leave_out_words_without_meaning() -> None:
    assert terms("I am still waiting on my card?") == ["wait", "card"]
    assert terms("The ATM kept it") == terms("a cash machine keeps it")


@given(st.text())
def test_terms_take_any_text(text: str) -> None:
    assert all(terms(text))
