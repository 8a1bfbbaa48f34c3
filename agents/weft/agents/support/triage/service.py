"""The agent support-triage."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from weft import rpc
from weft.agents.llm import Model
from weft.agents.support import fields
from weft.agents.support.triage import shipped
from weft.agents.support.triage.judging import MOST_INTENTS, Judge
from weft.agents.support.triage.language import LanguageProfiles
from weft.agents.support.triage.lesson import Guess
from weft.agents.support.triage.library import Library
from weft.agents.support.triage.sentiment import judge_sentiment
from weft.agents.support.triage.store import DEFAULT_MODEL, Store
from weft.agents.support.triage.urgency import judge_urgency
from weft.postgres import Database
from weft.support.v1 import support_pb2, triage_pb2, triage_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

_MODEL = re.compile(r"[a-z0-9_-]{1,64}")
_INTENT = re.compile(r"[a-z][a-z0-9_]{0,99}")
_MOST_GUESSES = 5
_MOST_A_REQUEST = 1_000
_MOST_A_STREAM = 200_000


class TriageAgent(triage_pb2_grpc.TriageServiceServicer):
    """Classifies customer texts and learns to. Close it with `close()`.

    Args:
        database: where what it is taught is kept.
        model: judges, where what was taught is the choice it has; None: what was taught judges.
    """

    def __init__(self, database: Database, model: Model | None = None) -> None:
        self._judge = None if model is None else Judge(model)
        self._store = Store(database)
        self._library = Library(self._store)
        self._languages = LanguageProfiles(shipped.language_samples())

    def warm(self) -> None:
        """Begins to train the default model, so that the first who asks need not wait for it."""
        self._library.warm(DEFAULT_MODEL)

    async def Classify(
        self, request: triage_pb2.ClassifyRequest, context: Context
    ) -> triage_pb2.ClassifyResponse:
        """Tells intent, urgency, sentiment and language of a text."""
        del context
        fields.check(fields.text("text", request.text), _model_name(request.model))
        name = request.model or DEFAULT_MODEL
        trained = await self._library.model(name)
        guesses = trained.guesses(request.text, MOST_INTENTS)
        assessment = self._assessment(request.text, guesses[:_MOST_GUESSES])
        if self._judge is not None:
            offered = [guess.intent for guess in guesses]
            expire = request.expire_time if request.HasField("expire_time") else None
            assessment = await self._judge.assess(request.text, offered, assessment, expire)
        return triage_pb2.ClassifyResponse(assessment=assessment, model=name)

    def _assessment(self, text: str, guesses: list[Guess]) -> support_pb2.Assessment:
        first, *others = (
            support_pb2.Scored(value=guess.intent, confidence=guess.confidence) for guess in guesses
        )
        urgency = judge_urgency(text)
        sentiment = judge_sentiment(text)
        language = self._languages.detect(text)
        return support_pb2.Assessment(
            intent=first,
            alternatives=others,
            urgency=urgency.value,
            urgency_confidence=urgency.confidence,
            sentiment=sentiment.value,
            sentiment_confidence=sentiment.confidence,
            language=support_pb2.Scored(value=language.tag, confidence=language.confidence),
        )

    async def Teach(
        self, request_iterator: AsyncIterator[triage_pb2.TeachRequest], context: Context
    ) -> triage_pb2.TeachResponse:
        """Learns labelled texts and retrains."""
        del context
        name, intents = await _lesson(request_iterator)
        taught = await self._library.teach(name, intents)
        response = triage_pb2.TeachResponse(
            model=name,
            taught=len(intents),
            examples=taught.model.examples,
            intents=len(taught.model.intents),
        )
        response.training_time.FromTimedelta(taught.training_time)
        return response

    async def ListModels(
        self, request: triage_pb2.ListModelsRequest, context: Context
    ) -> triage_pb2.ListModelsResponse:
        """Lists the models, the default one first."""
        del request, context
        response = triage_pb2.ListModelsResponse()
        for summary in await self._store.summaries():
            model = response.models.add(
                model=summary.model, examples=summary.examples, intents=summary.intents
            )
            if summary.update_time is not None:
                model.update_time.FromDatetime(summary.update_time)
        return response

    async def DeleteModel(
        self, request: triage_pb2.DeleteModelRequest, context: Context
    ) -> triage_pb2.DeleteModelResponse:
        """Deletes a model, or takes the default one back to what it ships with."""
        del context
        fields.check(fields.text("model", request.model), _model_name(request.model))
        await self._library.delete(request.model)
        return triage_pb2.DeleteModelResponse()

    async def close(self) -> None:
        """Ends what is under way in the background."""
        await self._library.close()


async def _lesson(
    requests: AsyncIterator[triage_pb2.TeachRequest],
) -> tuple[str, dict[str, str]]:
    """The model a stream teaches, and intents by text; of equal texts the last counts."""
    name: str | None = None
    intents: dict[str, str] = {}
    received = 0
    async for request in requests:
        if name is None:
            fields.check(_model_name(request.model))
            name = request.model or DEFAULT_MODEL
        fields.check(fields.at_most("examples", request.examples, _MOST_A_REQUEST))
        for example in request.examples:
            fields.check(*_example_rules(received, example))
            received += 1
            intents[example.text] = example.intent
        if received > _MOST_A_STREAM:
            raise rpc.InvalidArgument(
                f"takes at most {_MOST_A_STREAM:,} a stream", field="examples"
            )
    if not intents:
        raise rpc.InvalidArgument("must hold an example", field="examples")
    return name or DEFAULT_MODEL, intents


def _example_rules(
    number: int, example: triage_pb2.Example
) -> tuple[Iterator[fields.Violation], ...]:
    path = f"examples[{number}]"
    return (
        fields.text(f"{path}.text", example.text),
        fields.matching(
            f"{path}.intent", example.intent, _INTENT, "snake_case, 1 to 100 characters"
        ),
    )


def _model_name(value: str) -> Iterator[fields.Violation]:
    what = "1 to 64 characters of a-z, 0-9, hyphen and underscore"
    return fields.optional_matching("model", value, _MODEL, what)
