"""What a model finds a request to be about, among the intents that were taught; what was taught judges where it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from weft import rpc
from weft.agents.llm import Filled, Model, Prompts
from weft.agents.support import minds
from weft.support.v1.minds_pb2 import Judged
from weft.support.v1.support_pb2 import URGENCY_CRITICAL, Assessment, Scored

MOST_INTENTS = 100
"""Offered to the model, the most probable of those that were taught."""

_SHARE = 0.2  # of the time there is
_MOST = timedelta(seconds=3)
_MOST_ALTERNATIVES = 4
_CLASSIFIED = "It was classified by what triage was taught."


class Judge:
    """Judges requests.

    Args:
        model: asked.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._prompts = Prompts.beside(__file__)

    async def assess(
        self, text: str, intents: Sequence[str], taught: Assessment, expire: Timestamp | None
    ) -> Assessment:
        """What the model finds, or what was found by what was taught, with the reason.

        Args:
            text: what the customer wrote.
            intents: to choose from.
            taught: what was found without the model.
            expire: when whoever asked stops waiting; None: when the deadline of the call says.
        """
        question = self._prompts["classify"].ask(text=text, intents=", ".join(sorted(intents)))
        try:
            with minds.thinking(expire, share=_SHARE, most=_MOST):
                filled = await self._model.fill(Judged, question)
            return _assessment(filled, intents, taught)
        except (rpc.Error, minds.Unfit) as failed:
            marked = Assessment(degraded=f"{minds.why(failed)} {_CLASSIFIED}")
            marked.MergeFrom(taught)
            return marked


def _assessment(filled: Filled[Judged], intents: Sequence[str], taught: Assessment) -> Assessment:
    judged = filled.message
    if judged.intent not in intents:
        raise minds.Unfit("an intent that was not offered")
    intent = Scored(value=judged.intent, confidence=_probability(judged.intent_confidence))
    urgency, confidence = judged.urgency, _probability(judged.urgency_confidence)
    if taught.urgency == URGENCY_CRITICAL:
        # Whoever has a customer's card may write to us as well: no text talks money out of danger.
        urgency, confidence = taught.urgency, taught.urgency_confidence
    return Assessment(
        intent=intent,
        alternatives=_alternatives(intent, taught),
        urgency=urgency,
        urgency_confidence=confidence,
        sentiment=judged.sentiment,
        sentiment_confidence=_probability(judged.sentiment_confidence),
        language=Scored(value=judged.language, confidence=_probability(judged.language_confidence)),
        model=filled.reply.model,
        degraded=minds.STOOD_IN if filled.reply.fallback else "",
    )


def _alternatives(intent: Scored, taught: Assessment) -> list[Scored]:
    """What was found without the model, but for its choice, in what is left of the probability."""
    others = [each for each in (taught.intent, *taught.alternatives) if each.value != intent.value][
        :_MOST_ALTERNATIVES
    ]
    total = sum(each.confidence for each in others)
    share = min(1.0, (1.0 - intent.confidence) / total) if total else 0.0
    return [Scored(value=each.value, confidence=share * each.confidence) for each in others]


def _probability(value: float) -> float:
    return min(max(value, 0.0), 1.0)
