"""The review of an answer: all checks, and the decision that follows from what they find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from weft.agents.support.prose import bare, sentences, terms
from weft.agents.support.quality import grounding, privacy, tone
from weft.support.v1.support_pb2 import (
    DECISION_ESCALATE,
    DECISION_PASS,
    DECISION_REVISE,
    Answer,
    Decision,
    Finding,
    Passage,
    Verdict,
)

WHOLE = -1
_LEAST_SHARE = 0.15  # of the question's words that a relevant answer holds
_ENOUGH_WORDS = 3  # of them, however long the question


def review(question: str, answer: Answer, passages: Sequence[Passage]) -> Verdict:
    """Judges an answer.

    It passes without findings; a person must answer where mending cannot help: there is no answer, it misses the
    question, it leaks as a whole, or no sentence is left without a fault. Otherwise it is to be revised.
    """
    parts = sentences(answer.text)
    if not parts:
        missing = _finding("relevance", "There is no answer.", WHOLE)
        return Verdict(decision=DECISION_ESCALATE, findings=[missing])
    cited = _cited(answer, passages)
    findings = [
        *(
            _finding("grounding", fault, number)
            for number, fault in _grounding(parts, answer, passages)
        ),
        *_privacy(parts, answer, cited),
        *(
            _finding("tone", fault, number)
            for number, one in enumerate(parts)
            for fault in tone.faults(one)
        ),
        *_relevance(question, parts, cited),
    ]
    return Verdict(decision=_decision(findings, len(parts)), findings=findings)


def _decision(findings: Sequence[Finding], parts: int) -> Decision.ValueType:
    if not findings:
        return DECISION_PASS
    faulty = {finding.sentence for finding in findings}
    if WHOLE in faulty or len(faulty) == parts:
        return DECISION_ESCALATE
    return DECISION_REVISE


def _grounding(
    parts: Sequence[str], answer: Answer, passages: Sequence[Passage]
) -> Iterator[tuple[int, str]]:
    return grounding.faults(parts, answer.citations, passages)


def _cited(answer: Answer, passages: Sequence[Passage]) -> list[Passage]:
    ids = {citation.passage_id for citation in answer.citations}
    return [passage for passage in passages if passage.passage_id in ids]


def _privacy(parts: Sequence[str], answer: Answer, cited: Sequence[Passage]) -> Iterator[Finding]:
    published = "\n".join(passage.text for passage in cited)
    seen: set[str] = set()
    for number, part in enumerate(parts):
        for leak in _leaks(part, published):
            seen.add(leak.value)
            yield _finding("privacy", f"It holds {leak.kind}.", number)
    # Data may run over the end of a sentence, or stand in a quotation only.
    for text in (answer.text, *(citation.quote for citation in answer.citations)):
        for leak in _leaks(text, published):
            if leak.value not in seen:
                seen.add(leak.value)
                yield _finding("privacy", f"The answer or a quotation holds {leak.kind}.", WHOLE)


def _leaks(text: str, published: str) -> Iterator[privacy.Leak]:
    """Leaks in a text, but for contacts that the knowledge base itself publishes."""
    return (leak for leak in privacy.leaks(text) if not (leak.public and leak.value in published))


def _relevance(question: str, parts: Sequence[str], cited: Sequence[Passage]) -> Iterator[Finding]:
    asked = set(terms(question))
    context = " ".join(f"{passage.title} {passage.heading}" for passage in cited)
    said = set(terms(" ".join((context, *map(bare, parts)))))
    shared = len(asked & said)
    if asked and shared < _ENOUGH_WORDS and shared < max(1.0, _LEAST_SHARE * len(asked)):
        yield _finding("relevance", "It does not speak of what was asked.", WHOLE)


def _finding(check: str, detail: str, sentence: int) -> Finding:
    return Finding(check=check, detail=detail, sentence=sentence)
