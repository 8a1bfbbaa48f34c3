"""Answers made of sentences of the passages as they stand. The same brief always gives the same answer.

The passage that holds most of the question leads: its best sentences are taken, in their order. A second passage adds
a sentence where it holds words of the question that the first one lacks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from weft.agents.support.prose import marks, sentences, terms
from weft.agents.support.solution.composer import Brief, Draft, Run
from weft.support.v1.support_pb2 import ORIGIN_EXTRACTIVE, ORIGIN_MODEL, Passage

_HEADING = (
    0.8  # what a word of the question is worth in the heading, where 1 is the sentence itself
)
_TITLE = 0.6
_MOST_FROM_LEAD = 3
_MOST_SENTENCE = 1_500  # characters, so that an answer never outgrows its limit
_NEAR_BEST = 0.6  # share of the best sentence's score that makes a sentence worth taking
_WORTH_ADDING = 0.25  # share of the question's weight a second passage must add
_LEAST_RANK = 0.5  # of the second passage, against the lead's
_IRRELEVANCE = 0.5  # how much a word counts that no passage holds: customers tell stories
_LEAST_CONFIDENCE = 0.2
# A sentence that begins so does not stand without the one before it.
_LEANING = re.compile(r"(?:Otherwise|Then|This|It|They|These|Both)\b")
_ONE_WORD = 0.4  # most confidence when a single word of several was found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sentence:
    text: str
    begin: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A passage with what it holds of the question."""

    passage: Passage
    sentences: tuple[_Sentence, ...]
    found: frozenset[str]
    score: float


class ExtractiveComposer:
    """Takes sentences from passages."""

    async def compose(self, brief: Brief) -> Draft:
        """Composes from the sentences that hold most of the question; drops those that quality flagged."""
        question = _Question(brief.question, brief.passages)
        candidates = [
            candidate
            for passage in brief.passages
            if (candidate := question.candidate(passage)).sentences and candidate.score > 0
        ]
        if not candidates:
            return _NOTHING
        lead = max(candidates, key=lambda candidate: candidate.score)
        confidence = question.confidence(lead.found)
        if confidence < _LEAST_CONFIDENCE:
            return _NOTHING
        chosen = [(lead.passage, sentence) for sentence in _best_of(lead)]
        chosen += question.addition(lead, candidates)
        # Sentences of a model's answer are others.
        own = brief.earlier.origin != ORIGIN_MODEL
        flagged = {finding.sentence for finding in brief.findings} if own else set()
        kept = [one for number, one in enumerate(chosen) if number not in flagged]
        if not kept:
            return _NOTHING
        return Draft(runs=tuple(_runs(kept)), origin=ORIGIN_EXTRACTIVE, confidence=confidence)


_NOTHING = Draft(runs=(), origin=ORIGIN_EXTRACTIVE, confidence=0.0)


class _Question:
    """A question's words, each weighed by how few of the passages hold it."""

    def __init__(self, question: str, passages: Sequence[Passage]) -> None:
        held = [
            frozenset(terms(f"{passage.title}\n{passage.heading}\n{passage.text}"))
            for passage in passages
        ]
        self._weights = {
            # From 1 for a word that all passages hold to about 2.5 for one that a single passage of ten holds.
            term: 1.0 + math.log(len(held) / count)
            if (count := sum(term in one for one in held))
            # Nobody holds it: it may be what the question is about, or part of a story.
            else _IRRELEVANCE * (1.0 + math.log(1 + len(held)))
            for term in sorted(set(terms(question)))
        }
        self._best_rank = max((passage.score for passage in passages), default=0.0)

    def weight(self, found: frozenset[str]) -> float:
        return sum(self._weights[term] for term in sorted(found))

    def candidate(self, passage: Passage) -> _Candidate:
        heading = self._weights.keys() & set(terms(passage.heading))
        title = self._weights.keys() & set(terms(passage.title))
        scored: list[_Sentence] = []
        found = heading | title
        for text, begin in _placed(passage.text):
            own = self._weights.keys() & set(terms(text))
            found |= own
            score = (
                self.weight(frozenset(own))
                + _HEADING * self.weight(frozenset(heading - own))
                + _TITLE * self.weight(frozenset(title - heading - own))
            )
            scored.append(_Sentence(text=text, begin=begin, end=begin + len(text), score=score))
        total = (
            self.weight(frozenset(found))
            + 0.5 * self.weight(frozenset(heading))
            + 0.5 * max((one.score for one in scored), default=0.0)
        )
        return _Candidate(
            passage=passage,
            sentences=tuple(scored),
            found=frozenset(found),
            score=total * (0.4 + 0.6 * self._rank(passage)),
        )

    def addition(
        self, lead: _Candidate, candidates: Sequence[_Candidate]
    ) -> list[tuple[Passage, _Sentence]]:
        """The best sentence of the passage that adds most to the lead, if any adds enough."""
        enough = _WORTH_ADDING * self.weight(frozenset(self._weights))
        adding = [
            one
            for one in candidates
            if one is not lead
            and self.weight(one.found - lead.found) >= enough
            and self._rank(one.passage) >= _LEAST_RANK
        ]
        if not adding:
            return []
        best = max(adding, key=lambda one: self.weight(one.found - lead.found))
        return [(best.passage, max(best.sentences, key=lambda one: one.score))]

    def confidence(self, found: frozenset[str]) -> float:
        """How much of the question was found, by weight."""
        total = self.weight(frozenset(self._weights))
        share = self.weight(found) / total if total else 0.0
        if len(found) == 1 and len(self._weights) > 1:
            share = min(share, _ONE_WORD)
        return round(0.95 * share, 4)

    def _rank(self, passage: Passage) -> float:
        """Research's score, as a share of its best; 1 where research gave none."""
        return passage.score / self._best_rank if self._best_rank else 1.0


def _placed(text: str) -> Iterator[tuple[str, int]]:
    """The sentences of a passage and where they begin. One that holds marks like [1] would confuse citations."""
    position = 0
    for sentence in sentences(text):
        position = text.index(sentence, position)
        if not marks(sentence) and len(sentence) <= _MOST_SENTENCE:
            yield sentence, position
        position += len(sentence)


def _best_of(lead: _Candidate) -> list[_Sentence]:
    """The best sentences in their order; a single one gets its neighbour, to read well."""
    ranked = sorted(lead.sentences, key=lambda one: -one.score)
    worth = [one for one in ranked if one.score >= _NEAR_BEST * ranked[0].score]
    chosen = worth[:_MOST_FROM_LEAD]
    if len(chosen) == 1:
        following = [one for one in lead.sentences if one.begin > chosen[0].begin]
        chosen += following[:1]
    first = min(lead.sentences.index(one) for one in chosen)
    if first and _LEANING.match(lead.sentences[first].text):
        chosen = [lead.sentences[first - 1], *chosen]
    return sorted(chosen, key=lambda one: one.begin)[:_MOST_FROM_LEAD]


def _runs(chosen: Sequence[tuple[Passage, _Sentence]]) -> Iterator[Run]:
    """Neighbouring sentences of one passage share a quotation."""
    run: list[_Sentence] = []
    source: Passage | None = None
    for passage, sentence in chosen:
        if run and (passage is not source or not _adjoining(passage, run[-1], sentence)):
            assert source is not None
            yield _run(source, run)
            run = []
        source = passage
        run.append(sentence)
    if source is not None:
        yield _run(source, run)


def _adjoining(passage: Passage, one: _Sentence, other: _Sentence) -> bool:
    return not passage.text[one.end : other.begin].strip()


def _run(passage: Passage, run: Sequence[_Sentence]) -> Run:
    return Run(
        sentences=tuple(one.text for one in run),
        passage=passage,
        quote=passage.text[run[0].begin : run[-1].end],
    )
