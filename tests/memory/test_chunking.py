"""What is promised of chunks, of any text at all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.agents.memory.chunking import Chunking, Form, chunks

LEASE = """---
tags: [home]
---
# The lease

A lease is a contract. It is signed twice, e.g. by hand. "Is it?" Yes.

## Deposit

* It is paid first.
* It comes back,
  in the end.

### Interest

It bears 1.5 percent. Dr. Who said so.

```python
a = 1

b = 2
```

## Notice
"""

WORDS = st.text(alphabet="abc .!?\n#*-`>1é漢。\t\r\u2028", max_size=400)


def test_chunks_stand_under_their_headings_and_say_where_they_are():
    found = chunks(LEASE, Form.MARKDOWN)
    assert [(chunk.headings, chunk.text) for chunk in found] == [
        (
            ("The lease",),
            'A lease is a contract. It is signed twice, e.g. by hand. "Is it?" Yes.',
        ),
        (("The lease", "Deposit"), "* It is paid first.\n* It comes back,\n  in the end."),
        (
            ("The lease", "Deposit", "Interest"),
            "It bears 1.5 percent. Dr. Who said so.\n\n```python\na = 1\n\nb = 2\n```",
        ),
    ]
    assert all(LEASE[chunk.begin : chunk.end] == chunk.text for chunk in found)


def test_a_chunk_ends_with_a_sentence_and_the_next_one_repeats_its_last_ones():
    text = " ".join(f"This is sentence number {number}." for number in range(20))
    found = chunks(text, Form.PLAIN, Chunking(most=100, overlap=30))
    assert [chunk.text[-1] for chunk in found] == ["."] * len(found)
    for chunk, following in itertools.pairwise(found):
        shared = text[following.begin : chunk.end]
        assert shared.startswith("This is")
        assert shared.endswith(".")
        assert len(shared) <= 30


def test_no_overlap_where_none_is_wanted():
    text = " ".join(f"This is sentence number {number}." for number in range(20))
    found = chunks(text, Form.PLAIN, Chunking(most=100, overlap=0))
    assert " ".join(chunk.text for chunk in found) == text


def test_an_abbreviation_does_not_end_a_sentence():
    text = "Pay, i.e. send. Use max. 3 of 4, approx. 75 percent."
    found = chunks(text, Form.PLAIN, Chunking(most=36, overlap=0))
    assert [chunk.text for chunk in found] == [
        "Pay, i.e. send.",
        "Use max. 3 of 4, approx. 75 percent.",
    ]


def test_line_ends_of_windows_count_as_they_stand():
    text = "# A\r\n\r\nOne. Two.\r\n\r\n## B\r\n\r\nThree."
    assert [(c.begin, c.text) for c in chunks(text, Form.MARKDOWN)] == [
        (7, "One. Two."),
        (28, "Three."),
    ]


def test_an_overlap_leaves_room():
    with pytest.raises(ValueError, match="half"):
        Chunking(most=100, overlap=51)


@settings(max_examples=300, deadline=None)
@given(WORDS, st.sampled_from(Form), st.integers(1, 60), st.data())
def test_of_any_text(text: str, form: Form, most: int, data: st.DataObject):
    overlap = data.draw(st.integers(0, most // 2))
    found = chunks(text, form, Chunking(most=most, overlap=overlap))
    for chunk in found:
        assert chunk.text == text[chunk.begin : chunk.end]
        assert 0 < len(chunk.text) <= most
        assert chunk.text == chunk.text.strip()
    for chunk, following in itertools.pairwise(found):
        assert chunk.begin < following.begin
        assert chunk.end < following.end
        assert chunk.end - following.begin <= overlap
    if form is Form.PLAIN:
        held = {place for chunk in found for place in range(chunk.begin, chunk.end)}
        assert all(text[place].isspace() for place in set(range(len(text))) - held)
