"""The agent support-quality."""

from __future__ import annotations

from typing import Any

import grpc

from weft.agents.support import fields
from weft.agents.support.quality.review import review
from weft.support.v1 import quality_pb2, quality_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_MOST_PASSAGES = 50


class QualityAgent(quality_pb2_grpc.QualityServiceServicer):
    """Reviews answers."""

    async def Review(
        self, request: quality_pb2.ReviewRequest, context: Context
    ) -> quality_pb2.ReviewResponse:
        """Judges whether an answer is grounded, private and polite."""
        del context
        fields.check(
            fields.text("question", request.question),
            fields.optional_text("answer.text", request.answer.text, fields.MOST_TEXT),
            fields.at_most("passages", request.passages, _MOST_PASSAGES),
        )
        return quality_pb2.ReviewResponse(
            verdict=review(request.question, request.answer, request.passages)
        )
