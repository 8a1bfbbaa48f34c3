"""The agent support-solution."""

from __future__ import annotations

from typing import Any

import grpc

from weft.agents.support import fields
from weft.agents.support.prose import joined
from weft.agents.support.solution.composer import Brief, Composer, Draft
from weft.agents.support.solution.extractive import ExtractiveComposer
from weft.support.v1 import solution_pb2, solution_pb2_grpc, support_pb2

Context = grpc.aio.ServicerContext[Any, Any]

_MOST_PASSAGES = 50


class SolutionAgent(solution_pb2_grpc.SolutionServiceServicer):
    """Composes cited answers.

    Args:
        composer: what composes; by default rules that extract sentences.
    """

    def __init__(self, composer: Composer | None = None) -> None:
        self._composer: Composer = composer or ExtractiveComposer()

    async def Compose(
        self, request: solution_pb2.ComposeRequest, context: Context
    ) -> solution_pb2.ComposeResponse:
        """Composes an answer from the passages given."""
        del context
        fields.check(
            fields.text("question", request.question),
            fields.at_most("passages", request.passages, _MOST_PASSAGES),
        )
        draft = await self._composer.compose(
            Brief(
                question=request.question,
                passages=request.passages,
                assessment=request.assessment,
                findings=request.findings,
                earlier=request.earlier,
                extractive=request.extractive,
                expire=request.expire_time if request.HasField("expire_time") else None,
            )
        )
        return solution_pb2.ComposeResponse(answer=_answer(draft))


def _answer(draft: Draft) -> support_pb2.Answer:
    """A draft as text in which each sentence is followed by the number of its citation."""
    answer = support_pb2.Answer(
        origin=draft.origin,
        confidence=draft.confidence,
        model=draft.model,
        degraded=draft.degraded,
    )
    written: list[str] = []
    for number, run in enumerate(draft.runs, start=1):
        written += [f"{sentence} [{number}]" for sentence in run.sentences]
        answer.citations.add(
            number=number,
            passage_id=run.passage.passage_id,
            article_id=run.passage.article_id,
            title=run.passage.title,
            quote=run.quote,
        )
    answer.text = joined(written)
    return answer
