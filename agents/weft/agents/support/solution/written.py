"""Answers that a model writes from passages, in statements that each quote theirs.

What it writes is used as a whole or not at all: a quotation that does not stand in its passage, and everything else that cannot
be cited, makes it unfit. Then, and where no model answers, sentences are taken as they stand, and the answer says so. Whether a
statement says what its quotation says is for quality to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from weft import rpc
from weft.agents.llm import Filled, Model, Prompts, Question
from weft.agents.support import minds
from weft.agents.support.fields import MOST_TEXT
from weft.agents.support.minds import Unfit
from weft.agents.support.prose import marks, sentences
from weft.agents.support.solution.composer import Brief, Draft, Run
from weft.agents.support.solution.extractive import ExtractiveComposer
from weft.support.v1.minds_pb2 import Statement, Written
from weft.support.v1.support_pb2 import ORIGIN_MODEL, Finding, Passage

_SHARE = 0.5  # of the time there is: a review, a revision and its review come after
_MOST_QUOTE = 600  # characters: in a longer one everything stands somewhere
_AS_THEY_STAND = "Sentences of the articles were taken as they stand."
_REJECTED = "What the model wrote was not verified."
_ENDS = (".", "!", "?", "…")
_CLOSERS = "\"')]\u201d\u2019»"


class WritingComposer:
    """Has a model write, and takes sentences where it cannot.

    Args:
        model: writes.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._prompts = Prompts.beside(__file__)
        self._rules = ExtractiveComposer()

    async def compose(self, brief: Brief) -> Draft:
        """Composes an answer; see `Composer.compose`."""
        if brief.extractive:
            rejected = brief.earlier.origin == ORIGIN_MODEL
            return await self._taken(brief, _REJECTED if rejected else "")
        try:
            with minds.thinking(brief.expire, share=_SHARE):
                filled = await self._model.fill(Written, self._question(brief))
            return _draft(filled, brief.passages)
        except (rpc.Error, Unfit) as failed:
            return await self._taken(brief, minds.why(failed))

    async def _taken(self, brief: Brief, why: str) -> Draft:
        draft = await self._rules.compose(brief)
        return replace(draft, degraded=f"{why} {_AS_THEY_STAND}") if why else draft

    def _question(self, brief: Brief) -> Question:
        articles = [
            {"label": label, "title": each.title, "heading": each.heading, "text": each.text}
            for label, each in _labelled(brief.passages).items()
        ]
        if not brief.findings:
            return self._prompts["answer"].ask(question=brief.question, articles=articles)
        return self._prompts["revise"].ask(
            question=brief.question,
            articles=articles,
            answer=brief.earlier.text,
            findings=[_told(each) for each in brief.findings],
        )


def _told(finding: Finding) -> dict[str, object]:
    place = {"sentence": finding.sentence + 1} if finding.sentence >= 0 else {}
    return {"check": finding.check, "detail": finding.detail, **place}


def _labelled(passages: Sequence[Passage]) -> dict[str, Passage]:
    return {f"A{number}": passage for number, passage in enumerate(passages, start=1)}


def _draft(filled: Filled[Written], passages: Sequence[Passage]) -> Draft:
    """What a model wrote as a draft.

    Raises:
        Unfit: a part of it cannot be cited.
    """
    written = filled.message
    labelled = _labelled(passages)
    runs = tuple(_run(each, labelled) for each in written.statements)
    if sum(len(each) + len(" [999] ") for run in runs for each in run.sentences) > MOST_TEXT:
        raise Unfit("the answer is too long")
    return Draft(
        runs=runs,
        origin=ORIGIN_MODEL,
        confidence=min(max(written.confidence, 0.0), 1.0) if runs else 0.0,
        model=filled.reply.model,
        degraded=minds.STOOD_IN if filled.reply.fallback else "",
    )


def _run(statement: Statement, passages: Mapping[str, Passage]) -> Run:
    passage = passages.get(statement.article.strip().strip("[]"))
    if passage is None:
        raise Unfit("a statement cites an article that was not given")
    quote = _standing(statement.quote, passage.text)
    text = " ".join(statement.text.split())
    if not text or not text.isprintable():
        raise Unfit("a statement holds what cannot be shown")
    if marks(text):
        raise Unfit("a statement holds marks of citations")
    if not text.rstrip(_CLOSERS).endswith(_ENDS):
        text += "."  # or it would run into the next one
    return Run(sentences=sentences(text), passage=passage, quote=quote)


def _standing(quote: str, text: str) -> str:
    """A quotation as it stands in a text, however its white space runs.

    Raises:
        Unfit: it does not.
    """
    words = quote.split()
    found = re.search(r"\s+".join(map(re.escape, words)), text) if words else None
    if found is None:
        raise Unfit("a quotation does not stand in its article")
    if len(found[0]) > _MOST_QUOTE:
        raise Unfit("a quotation is too long to support anything")
    return found[0]
