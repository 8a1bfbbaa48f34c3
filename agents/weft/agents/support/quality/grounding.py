"""Is every sentence of an answer supported by what it cites?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from weft.agents.support.prose import bare, marks, sentences, terms, words
from weft.support.v1.support_pb2 import Citation, Passage

_SUPPORT = 0.7  # share of a sentence's words that its quotations must hold
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# A name begins where no other one goes on, and its parts are never tried shorter: the time is that of the length.
_LINK = re.compile(
    r"(?:https?://|www\.)\S*[\w/]"
    r"|(?<![\w-])(?<![\w-]\.)[\w-]++(?:\.[\w-]++)*\.[a-z]{2,24}\b(?:/\S*[\w/])?",
    re.IGNORECASE,
)
_NEGATION = frozenset(("not", "no", "never", "nobody", "nothing", "none", "without", "cannot"))

Fault = tuple[int, str]


def faults(
    parts: Sequence[str], citations: Sequence[Citation], passages: Sequence[Passage]
) -> Iterator[Fault]:
    """Pairs of a sentence's number and what is wrong with it."""
    cited = {citation.number: citation for citation in citations}
    texts = {passage.passage_id: passage.text for passage in passages}
    for number, sentence in enumerate(parts):
        fault = _fault(sentence, cited, texts)
        if fault:
            yield number, fault


def _fault(sentence: str, cited: Mapping[int, Citation], texts: Mapping[str, str]) -> str:
    """What is wrong with a sentence; empty: nothing."""
    numbers = dict.fromkeys(marks(sentence))
    if not numbers:
        return "The sentence cites nothing."
    for number in numbers:
        if number not in cited:
            return f"Citation [{number}] is not listed."
        text = texts.get(cited[number].passage_id)
        if text is None:
            return f"The passage of citation [{number}] was not given."
        if not _holds(text, cited[number].quote):
            return f"The quotation of [{number}] does not stand in its passage."
    return _unsupported(bare(sentence), " ".join(cited[number].quote for number in numbers))


def _holds(text: str, quote: str) -> bool:
    """Whether a text holds a quotation, however its white space runs."""
    return bool(quote.strip()) and " ".join(quote.split()) in " ".join(text.split())


def _unsupported(sentence: str, quotes: str) -> str:
    return "" if _holds(quotes, sentence) else next(_additions(sentence, quotes), "")


def _additions(sentence: str, quotes: str) -> Iterator[str]:
    """What a sentence says beyond its quotations."""
    if missing := set(_NUMBER.findall(sentence)) - set(_NUMBER.findall(quotes)):
        yield f"{len(missing)} of its numbers do not stand in what it cites."
    if set(_LINK.findall(sentence)) - set(_LINK.findall(quotes)):
        yield "It holds a link that does not stand in what it cites."
    said, held = set(terms(sentence)), set(terms(quotes))
    if not said or len(said & held) < _SUPPORT * len(said):
        yield "What it cites does not say this."
        return
    if _negated(sentence) and not _negated(quotes):
        yield "It denies what its citation does not deny."
    nearest = max(sentences(quotes), key=lambda each: len(said & set(terms(each))))
    if _negated(nearest) and not _negated(sentence):
        yield "It says what its citation denies."


def _negated(text: str) -> bool:
    return any(word in _NEGATION or word.endswith("n't") for word in words(text))
