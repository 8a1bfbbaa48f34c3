from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from weft import rpc
from weft.agents.support import TriageAgent
from weft.agents.support.triage import shipped
from weft.postgres import Database
from weft.rpc.testing import channel_for, wait_until
from weft.support.v1 import support_pb2, triage_pb2, triage_pb2_grpc

FRUIT = {
    "a red apple": "apple",
    "green apples are sour": "apple",
    "apple pie": "apple",
    "a yellow banana": "banana",
    "bananas are sweet": "banana",
    "banana bread": "banana",
}


@pytest_asyncio.fixture
async def agent(store: Database) -> AsyncIterator[TriageAgent]:
    made = TriageAgent(store)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def triage(agent: TriageAgent) -> AsyncIterator[triage_pb2_grpc.TriageServiceAsyncStub]:
    async with channel_for(triage_pb2_grpc.add_TriageServiceServicer_to_server, agent) as channel:
        yield triage_pb2_grpc.TriageServiceStub(channel)


def lesson(
    texts: dict[str, str], model: str = "", *, size: int = 1_000
) -> Iterator[triage_pb2.TeachRequest]:
    examples = [triage_pb2.Example(text=text, intent=intent) for text, intent in texts.items()]
    for begin in range(0, len(examples), size):
        yield triage_pb2.TeachRequest(model=model, examples=examples[begin : begin + size])


async def intent_of(
    triage: triage_pb2_grpc.TriageServiceAsyncStub, text: str, model: str = ""
) -> str:
    response = await triage.Classify(triage_pb2.ClassifyRequest(text=text, model=model))
    return response.assessment.intent.value


async def failure(call: Awaitable[Any]) -> rpc.Error:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return rpc.error_from_call(failed.value)


async def test_the_default_model_classifies_with_no_teaching(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    response = await triage.Classify(
        triage_pb2.ClassifyRequest(text="My card was stolen and somebody is using it!!")
    )
    assessment = response.assessment
    assert response.model == "default"
    assert assessment.intent.value in ("card_lost", "fraud_report")
    assert 0 < assessment.intent.confidence <= 1
    assert len(assessment.alternatives) == 4
    assert assessment.urgency == support_pb2.URGENCY_CRITICAL
    assert assessment.sentiment == support_pb2.SENTIMENT_NEGATIVE
    assert assessment.language.value == "en"


async def test_what_is_taught_is_known_at_once_and_to_that_model_only(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    taught = await triage.Teach(lesson(FRUIT, "fruit", size=4))
    assert (taught.model, taught.taught, taught.examples, taught.intents) == ("fruit", 6, 6, 2)
    assert taught.training_time.ToMicroseconds() > 0
    assert await intent_of(triage, "bananas", "fruit") == "banana"
    assert await intent_of(triage, "apples", "fruit") == "apple"
    assert await intent_of(triage, "My card was declined") == "card_declined"


async def test_teaching_the_default_model_adds_to_what_it_ships_with(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    taught = await triage.Teach(lesson(FRUIT))
    assert taught.examples == len(shipped.examples()) + len(FRUIT)
    assert await intent_of(triage, "banana bread recipe") == "banana"
    assert await intent_of(triage, "My card was declined") == "card_declined"
    await triage.DeleteModel(triage_pb2.DeleteModelRequest(model="default"))
    listed = await triage.ListModels(triage_pb2.ListModelsRequest())
    assert listed.models[0].examples == len(shipped.examples())
    assert await intent_of(triage, "banana bread recipe") != "banana"


async def test_teaching_a_text_again_replaces_its_label(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    await triage.Teach(lesson(FRUIT, "fruit"))
    swapped = {text: {"apple": "banana", "banana": "apple"}[one] for text, one in FRUIT.items()}
    taught = await triage.Teach(lesson(swapped, "fruit"))
    assert taught.examples == len(FRUIT)
    assert await intent_of(triage, "a red apple", "fruit") == "banana"


async def test_equal_texts_of_a_stream_count_once_and_the_last_label_wins(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    twice = triage_pb2.TeachRequest(
        model="m",
        examples=[
            triage_pb2.Example(text="one", intent="wrong"),
            triage_pb2.Example(text="one", intent="first"),
            triage_pb2.Example(text="two", intent="second"),
        ],
    )
    taught = await triage.Teach(iter([twice]))
    assert (taught.taught, taught.examples, taught.intents) == (2, 2, 2)


async def test_models_survive_a_restart(
    store: Database, triage: triage_pb2_grpc.TriageServiceAsyncStub
) -> None:
    await triage.Teach(lesson(FRUIT, "fruit"))
    restarted = TriageAgent(store)
    async with channel_for(
        triage_pb2_grpc.add_TriageServiceServicer_to_server, restarted
    ) as channel:
        asked = [
            intent_of(triage_pb2_grpc.TriageServiceStub(channel), "bananas", "fruit")
            for _ in range(20)
        ]
        assert set(await asyncio.gather(*asked)) == {"banana"}
    await restarted.close()


async def test_another_replica_soon_knows_what_was_taught(
    store: Database, triage: triage_pb2_grpc.TriageServiceAsyncStub
) -> None:
    await triage.Teach(lesson(FRUIT, "fruit"))
    other = TriageAgent(store)
    async with channel_for(triage_pb2_grpc.add_TriageServiceServicer_to_server, other) as channel:
        replica = triage_pb2_grpc.TriageServiceStub(channel)
        assert await intent_of(replica, "cherry cake", "fruit") != "cherry"
        await triage.Teach(lesson({"cherry cake": "cherry", "red cherries": "cherry"}, "fruit"))

        async def knows() -> bool:
            return await intent_of(replica, "cherry cake", "fruit") == "cherry"

        await wait_until(knows)
    await other.close()


async def test_the_old_model_answers_while_the_new_one_trains(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    await triage.Teach(lesson(FRUIT, "fruit"))
    many = {f"{text} {n}": intent for text, intent in FRUIT.items() for n in range(300)}
    teaching = asyncio.ensure_future(triage.Teach(lesson(many, "fruit")))
    answered = 0
    while not teaching.done():
        assert await intent_of(triage, "bananas", "fruit") == "banana"
        answered += 1
    assert (await teaching).examples == len(FRUIT) + len(many)
    assert answered > 5


async def test_a_broken_stream_teaches_nothing(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    await triage.Teach(lesson(FRUIT, "fruit"))

    async def broken() -> AsyncIterator[triage_pb2.TeachRequest]:
        for request in lesson({"a cherry": "cherry"}, "fruit"):
            yield request
        yield triage_pb2.TeachRequest(examples=[triage_pb2.Example(text="", intent="cherry")])

    failed = await failure(triage.Teach(broken()))
    assert isinstance(failed, rpc.InvalidArgument)
    assert failed.violations[0][0] == "examples[1].text"
    listed = await triage.ListModels(triage_pb2.ListModelsRequest())
    assert [(one.model, one.intents) for one in listed.models][1:] == [("fruit", 2)]


async def test_one_intent_is_not_enough(triage: triage_pb2_grpc.TriageServiceAsyncStub) -> None:
    failed = await failure(triage.Teach(lesson({"one": "only"}, "lonely")))
    assert (type(failed), failed.reason) == (rpc.FailedPrecondition, "TOO_FEW_INTENTS")
    failed = await failure(triage.Classify(triage_pb2.ClassifyRequest(text="one", model="lonely")))
    assert (type(failed), failed.reason) == (rpc.NotFound, "UNKNOWN_MODEL")


async def test_models_are_listed_the_default_first_and_deleted(
    triage: triage_pb2_grpc.TriageServiceAsyncStub,
) -> None:
    await triage.Teach(lesson(FRUIT, "apricot"))
    listed = await triage.ListModels(triage_pb2.ListModelsRequest())
    assert [one.model for one in listed.models] == ["default", "apricot"]
    assert not listed.models[0].HasField("update_time")
    assert listed.models[1].HasField("update_time")
    await triage.DeleteModel(triage_pb2.DeleteModelRequest(model="apricot"))
    for call in (
        triage.DeleteModel(triage_pb2.DeleteModelRequest(model="apricot")),
        triage.Classify(triage_pb2.ClassifyRequest(text="apple", model="apricot")),
    ):
        assert isinstance(await failure(call), rpc.NotFound)


async def test_bad_requests_name_the_field(triage: triage_pb2_grpc.TriageServiceAsyncStub) -> None:
    for text, model, field in (
        ("", "", "text"),
        ("  \n", "", "text"),
        ("x" * 8_001, "", "text"),
        ("nul \x00", "", "text"),
        ("fine", "Bad Name", "model"),
        ("fine", "x" * 65, "model"),
    ):
        failed = await failure(triage.Classify(triage_pb2.ClassifyRequest(text=text, model=model)))
        assert isinstance(failed, rpc.InvalidArgument)
        assert [path for path, _ in failed.violations] == [field]


async def test_bad_lessons_name_the_field(triage: triage_pb2_grpc.TriageServiceAsyncStub) -> None:
    example = triage_pb2.Example(text="a", intent="No Snake")
    for request, field in (
        (triage_pb2.TeachRequest(model="m"), "examples"),
        (triage_pb2.TeachRequest(model="M!"), "model"),
        (triage_pb2.TeachRequest(examples=[example]), "examples[0].intent"),
        (triage_pb2.TeachRequest(examples=[example] * 1_001), "examples"),
    ):
        failed = await failure(triage.Teach(iter([request])))
        assert isinstance(failed, rpc.InvalidArgument)
        assert [path for path, _ in failed.violations] == [field]
