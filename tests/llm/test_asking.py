from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from weft import rpc
from weft.agents import llm
from weft.agents.breaker import BreakerSettings
from weft.rpc.testing import wait_until
from weft.testing.messages_server import MessagesServer
from weft.testing.messages_server import scenarios as say

SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-5-5"


@pytest.mark.parametrize(
    "scenario",
    [
        say.overloaded(),
        say.rate_limited(),
        say.rate_limited(3600),
        say.errs(),
        say.failure(401, "authentication_error"),
    ],
    ids=lambda scenario: f"{scenario.status}-{scenario.fault}",
)
async def test_another_model_stands_in(house, scenario) -> None:
    house.server.always(SONNET, scenario)
    house.server.always(HAIKU, say.text("from the other"))
    reply = await house.model(SONNET, HAIKU).generate("hi")
    assert (reply.text, reply.model, reply.fallback) == ("from the other", HAIKU, True)
    # It is not asked again what it is too busy for.
    assert [each.model for each in house.server.requests] == [SONNET, HAIKU]


@pytest.mark.parametrize("scenario", [say.drops(), say.ends(), say.broken(), say.failure(500, "")])
async def test_another_model_stands_in_when_a_second_attempt_fails_too(house, scenario) -> None:
    house.server.always(SONNET, scenario)
    house.server.always(HAIKU, say.text("from the other"))
    reply = await house.model(SONNET, HAIKU).generate("hi")
    assert (reply.text, reply.fallback) == ("from the other", True)
    assert [each.model for each in house.server.requests] == [SONNET, SONNET, HAIKU]


async def test_a_stall_leaves_the_other_model_its_time(house) -> None:
    model = house.model(SONNET, HAIKU, endpoint={"idle": timedelta(minutes=1)})
    house.server.always(SONNET, say.text("hello"))
    await model.generate("hi")
    house.server.always(SONNET, say.stalls())
    house.server.always(HAIKU, say.text("from the other"))
    with rpc.Deadline.after(timedelta(seconds=6)).applied() as deadline:
        reply = await model.generate("hi")
        assert not deadline.expired()
    assert reply.text == "from the other"


async def test_a_refusal_is_not_taken_elsewhere(house) -> None:
    house.server.always(SONNET, say.refuses())
    with pytest.raises(llm.ModelRefused):
        await house.model(SONNET, HAIKU).generate("hi")
    assert [each.model for each in house.server.requests] == [SONNET]


async def test_the_circuit_opens_and_one_request_tries_it_again(house) -> None:
    settings = BreakerSettings(failures=3, open=timedelta(seconds=0.5))
    models = house.models(SONNET, breaker=settings, entry={"retries": 0})
    house.server.always(SONNET, say.overloaded())
    for _ in range(3):
        with pytest.raises(llm.ModelOverloaded):
            await models[SONNET].generate("hi")
    with pytest.raises(llm.CircuitOpen) as shut:
        await models[SONNET].generate("hi")
    assert shut.value.metadata == {"model": SONNET, "endpoint": "test"}
    assert shut.value.retry_after <= timedelta(seconds=0.5)
    assert len(house.server.requests) == 3
    house.server.always(SONNET, say.text("hello"))
    await asyncio.sleep(shut.value.retry_after.total_seconds())
    assert (await models[SONNET].generate("hi")).text == "hello"


async def test_nobody_waits_for_a_circuit_that_is_open(house, monkeypatch) -> None:
    model = house.model(SONNET, breaker=BreakerSettings(failures=1))
    pauses: list[float] = []

    def spread() -> float:
        pauses.append(0.0)
        return 0.0

    monkeypatch.setattr(model._way.asker, "_spread", spread)
    house.server.answer(say.overloaded())
    with pytest.raises(llm.ModelOverloaded):
        await model.generate("hi")
    assert len(pauses) == len(house.server.requests) == 1


async def test_models_of_one_endpoint_have_circuits_of_their_own(house) -> None:
    models = house.models(SONNET, HAIKU, breaker=BreakerSettings(failures=1))
    house.server.always(SONNET, say.overloaded())
    house.server.always(HAIKU, say.text("hello"))
    for _ in range(2):
        assert (await models[SONNET].generate("hi")).fallback
    assert [each.model for each in house.server.requests] == [SONNET, HAIKU, HAIKU]


async def test_what_is_not_the_endpoints_fault_opens_no_circuit(house) -> None:
    models = house.models(SONNET, breaker=BreakerSettings(failures=1))
    house.server.answer(say.failure(400, "invalid_request_error"), say.refuses(), say.text("hello"))
    with pytest.raises(llm.ModelRejected):
        await models[SONNET].generate("hi")
    with pytest.raises(llm.ModelRefused):
        await models[SONNET].generate("hi")
    assert (await models[SONNET].generate("hi")).text == "hello"


async def test_an_answer_comes_in_pieces(house) -> None:
    house.server.answer(say.text("a quite long answer in pieces"))
    async with house.model().stream("hi") as stream:
        pieces = [delta.text async for delta in stream]
        assert len(pieces) > 1
        assert "".join(pieces) == stream.reply.text == "a quite long answer in pieces"


async def read(stream) -> str:
    return "".join([delta.text async for delta in stream])


@pytest.mark.parametrize("scenario", [say.ends(after=4), say.drops(after=4), say.errs(after=4)])
async def test_nothing_begins_anew_once_text_was_shown(house, scenario) -> None:
    house.server.answer(scenario, say.text("another beginning"))
    stream = house.model().stream("hi")
    assert (await anext(stream)).text
    with pytest.raises(rpc.Unavailable):
        await read(stream)
    assert len(house.server.requests) == 1
    with pytest.raises(llm.StreamBroken):
        _ = stream.reply


async def test_it_begins_anew_where_that_is_wanted_and_says_so(house) -> None:
    house.server.answer(say.ends("so far, so good", after=4), say.text("another beginning"))
    stream = house.model().stream("hi", restart=True)
    shown = ""
    restarts = 0
    async for delta in stream:
        restarts += delta.restart
        shown = "" if delta.restart else shown + delta.text
    assert (shown, restarts) == ("another beginning", 1)
    assert stream.reply.attempts == 2


async def test_it_begins_anew_as_long_as_nothing_was_shown(house) -> None:
    house.server.answer(say.overloaded(), say.ends(after=1), say.text("hello"))
    stream = house.model().stream("hi")
    assert "".join([delta.text async for delta in stream]) == "hello"


async def test_a_stream_that_nobody_reads_on_is_ended(house) -> None:
    house.server.answer(say.text("word " * 500, pause=0.01))
    async with house.model().stream("hi") as stream:
        async for _ in stream:
            break
    await wait_until(lambda: house.server.cut)


async def test_a_prompt_is_kept_in_the_cache_and_read_from_it(house) -> None:
    model = house.model()
    house.server.always(SONNET, say.text("hello"))
    first = await model.generate("one", system="You are a bank. " * 200)
    second = await model.generate("two", system="You are a bank. " * 200)
    assert first.usage.cache_write_5m > 500
    assert first.usage.cache_read == 0
    assert second.usage.cache_write_5m == 0
    assert second.usage.cache_read == first.usage.cache_write_5m
    assert second.cost < first.cost / 5
    control = house.server.requests[0].body["system"][0]["cache_control"]
    assert control == {"type": "ephemeral"}
    await model.having(cache="1h").generate("three", system="You are a shop.")
    control = house.server.requests[2].body["system"][0]["cache_control"]
    assert control == {"type": "ephemeral", "ttl": "1h"}
    await model.having(cache="off").generate("four", system="You are a shop.")
    assert house.server.requests[3].body["system"] == "You are a shop."


async def test_an_endpoint_gets_only_what_it_knows() -> None:
    pytest.importorskip("anthropic")
    async with MessagesServer(flavour="ollama") as server:
        entry = llm.ModelEntry(
            endpoint=llm.preset("ollama", url=server.url),
            model="llama",
            settings=llm.ModelSettings(temperature=0.2),
        )
        models = llm.Models({"a": entry})
        reply = await models["a"].generate("hi", system="You are a bank.")
        await models.close()
        body = server.requests[0].body
    assert body["temperature"] == 0.2
    assert "cache_control" not in str(body)
    assert reply.cost == 0


async def test_a_name_without_entry_is_the_default_or_nothing(house) -> None:
    models = house.models("default")
    assert models["support-solution"].name == "support-solution"
    models = house.models(SONNET)
    assert models.get("support-solution") is None
    with pytest.raises(llm.ModelUnknown):
        models["support-solution"]
    with pytest.raises(ValueError, match="fall back"):
        llm.Models({"a": llm.ModelEntry(endpoint=llm.preset("ollama"), model="m", fallback=["b"])})


def test_presets_say_what_endpoints_can() -> None:
    ways = {name: each.structured for name, each in llm.PRESETS.items()}
    assert ways == {
        "claude": "format",
        "ollama": "prompt",
        "vllm": "format",
        "litellm": "forced_tool",
    }
    with pytest.raises(ValueError, match="no kind of endpoint"):
        llm.preset("openai")
