from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.agents.support.prose import sentences
from weft.agents.support.quality import privacy, tone
from weft.agents.support.research import shipped
from weft.agents.support.research.articles import BadArticle, Section, anchors, parse
from weft.agents.support.triage import shipped as lessons

ARTICLE = """\
---
intents: card_arrival, card_delivery
author: somebody
---

# When your *card* arrives

It takes 5 days. See [the app](https://example.com).

## How long it takes

- By post: 5 days
- By express:
  2 days

## Costs

`Express` costs 9 euros.<br>

> Standard post is free.
"""


def test_an_article_is_cut_at_its_headings_into_plain_text() -> None:
    article = parse("card-arrival", ARTICLE)
    assert article.title == "When your card arrives"
    assert article.intents == ("card_arrival", "card_delivery")
    assert [(one.heading, one.text) for one in article.sections] == [
        ("", "It takes 5 days. See the app."),
        ("How long it takes", "By post: 5 days\nBy express: 2 days"),
        ("Costs", "Express costs 9 euros.\nStandard post is free."),
    ]


def test_anchors_come_from_headings() -> None:
    sections = parse("a", ARTICLE).sections
    assert anchors(sections, {}) == ["top", "how-long-it-takes", "costs"]


def test_equal_headings_get_different_anchors() -> None:
    sections = [Section(heading=heading, text=text) for heading, text in ("ax", "ay", "Äz")]
    assert anchors(sections, {}) == ["a", "a-2", "a-3"]


def test_a_new_section_takes_no_anchor_from_an_old_one() -> None:
    old = [Section(heading="Costs", text="9 euros")]
    known = dict(zip(old, anchors(old, {}), strict=True))
    new = [Section(heading="Costs", text="Nothing"), *old]
    assert anchors(new, known) == ["costs-2", "costs"]


section = st.builds(
    Section, heading=st.sampled_from(["", "A", "a", "B c", "Top"]), text=st.text("xy", min_size=1)
)


@given(st.lists(section), st.lists(section))
def test_unchanged_sections_keep_their_anchor_and_none_is_given_twice(
    before: list[Section], after: list[Section]
) -> None:
    first = anchors(before, {})
    assert len(set(first)) == len(first)
    known = dict(zip(before, first, strict=True))
    second = anchors(after, known)
    assert len(set(second)) == len(second)
    given_now = dict(zip(reversed(after), reversed(second), strict=True))
    assert all(given_now[one] == known[one] for one in known.keys() & given_now.keys())


def test_a_long_section_becomes_several_passages() -> None:
    article = parse("long", "# Title\n\n" + "\n\n".join(["word " * 300] * 4))
    assert len(article.sections) == 2
    assert all(len(one.text) <= 4_000 for one in article.sections)
    assert sum(one.text.count("word") for one in article.sections) == 1_200


@given(st.text(max_size=500))
def test_any_markdown_is_read_or_refused(markdown: str) -> None:
    try:
        article = parse("a", markdown)
    except BadArticle:
        return
    assert article.title
    assert article.sections


@pytest.mark.parametrize(
    ("article_id", "markdown", "why"),
    [
        ("Bad Id", "# T\n\nx", "id"),
        ("a", "no heading", "heading"),
        ("a", "# Title only", "says nothing"),
        ("a", "---\nintents: x\n# T\n\ntext", "front matter"),
        ("a", "---\nintents: Not Snake\n---\n# T\n\ntext", "snake_case"),
        ("a", "# T\n\n" + "x" * 70_000, "64 KiB"),
        ("a", "# T\n\nx\x00", "NUL"),
    ],
)
def test_a_bad_article_is_refused_with_the_reason(article_id: str, markdown: str, why: str) -> None:
    with pytest.raises(BadArticle, match=why):
        parse(article_id, markdown)


def test_the_shipped_knowledge_base_is_sound() -> None:
    articles = shipped.articles()
    taught = {example.intent for example in lessons.examples()}
    assert len(articles) >= 40
    assert len({one.title for one in articles}) == len(articles)
    assert {intent for one in articles for intent in one.intents} == taught
    for article in articles:
        assert 2 <= len(article.sections) <= 6, article.article_id
        for part in article.sections:
            assert not list(privacy.leaks(part.text)), article.article_id
            for sentence in sentences(part.text):
                assert not list(tone.faults(sentence)), sentence
                assert sentence.endswith((".", '."')), sentence
