from __future__ import annotations

import json

import pytest

from weft.agents import llm
from weft.agents.llm.prices import Prices
from weft.testing.messages_server import scenarios as say

GOOD = {
    "summary": "it leaks",
    "severity": "SEVERITY_HIGH",
    "byte_offset": "9007199254740993",
    "labels": ["a"],
    "place": {"file": "x.py"},
    "code": "AB-1",
}
WAYS = ["format", "forced_tool", "prompt"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_message_is_filled_in_the_way_the_endpoint_has(house, lab, way) -> None:
    house.server.answer(say.fills(GOOD))
    filled = await house.model(endpoint={"structured": way}).fill(lab.Finding, "What is wrong?")
    assert isinstance(filled.message, lab.Finding)
    assert filled.message.byte_offset == 9007199254740993
    assert filled.message.file == "x.py"
    assert not filled.repaired
    assert filled.usage.tokens > 0
    body = house.server.requests[0].body
    assert ("output_config" in body) == (way == "format")
    assert ("tools" in body) == (way == "forced_tool")
    assert ("system" in body) == (way == "prompt")


@pytest.mark.parametrize("way", WAYS)
async def test_faults_are_told_once_and_mended(house, lab, way) -> None:
    bad = GOOD | {"severity": "DREADFUL", "byte_offset": "-1"}
    house.server.answer(say.fills(bad), say.fills(GOOD))
    filled = await house.model(endpoint={"structured": way}).fill(lab.Finding, "What is wrong?")
    assert filled.repaired
    assert filled.message.severity == 2
    asked = house.server.requests[1].body["messages"]
    assert "$.severity: must be one of" in asked[-1]["content"]
    assert "$.byte_offset: must be at least 0" in asked[-1]["content"]
    assert "DREADFUL" in str(asked[-2])
    # Both answers are paid for.
    assert filled.reply.attempts == 2
    price = Prices.shipped().of("claude-sonnet-5-5")
    assert filled.cost == price.of(filled.usage)


@pytest.mark.parametrize("way", WAYS)
async def test_faults_that_stay_are_a_clear_error(house, lab, way) -> None:
    house.server.answer(*[say.fills(GOOD | {"severity": "DREADFUL"})] * 3)
    with pytest.raises(llm.NotFilled) as failed:
        await house.model(endpoint={"structured": way}).fill(lab.Finding, "What is wrong?")
    assert len(house.server.requests) == 2
    assert failed.value.code.name == "INTERNAL"
    assert failed.value.metadata["type"] == "test.lab.v1.Finding"
    bad = failed.value.details[0]
    assert [each.field for each in bad.field_violations] == ["$.severity"]


async def test_words_in_place_of_json_are_a_fault_like_others(house, lab) -> None:
    house.server.answer(say.text("Well, it leaks."), say.fills(GOOD))
    filled = await house.model(endpoint={"structured": "prompt"}).fill(lab.Finding, "?")
    assert filled.repaired


async def test_json_among_words_is_found(house, lab) -> None:
    house.server.answer(say.text(f"Here:\n```json\n{json.dumps(GOOD)}\n```"))
    filled = await house.model(endpoint={"structured": "prompt"}).fill(lab.Finding, "?")
    assert not filled.repaired


async def test_broken_arguments_of_the_forced_tool_are_mended(house, lab) -> None:
    house.server.answer(say.tool("give_finding", '{"summary": "it le'), say.fills(GOOD))
    filled = await house.model(endpoint={"structured": "forced_tool"}).fill(lab.Finding, "?")
    assert filled.repaired


async def test_an_endpoint_that_ignores_the_tool_is_understood_all_the_same(house, lab) -> None:
    house.server.answer(say.text(json.dumps(GOOD)))
    filled = await house.model(endpoint={"structured": "forced_tool"}).fill(lab.Finding, "?")
    assert filled.message.summary == "it leaks"


@pytest.mark.parametrize("way", WAYS)
async def test_a_refusal_is_not_mended(house, lab, way) -> None:
    house.server.answer(say.refuses(json.dumps(GOOD)))
    with pytest.raises(llm.ModelRefused):
        await house.model(endpoint={"structured": way}).fill(lab.Finding, "?")
    assert len(house.server.requests) == 1


async def test_a_message_that_is_cut_off_is_none_even_where_it_is_valid(house, lab) -> None:
    house.server.answer(say.cut_off(json.dumps(GOOD)))
    with pytest.raises(llm.AnswerCutOff):
        await house.model().fill(lab.Finding, "?")


async def test_a_message_whose_stream_ends_is_none_even_where_it_is_valid(house, lab) -> None:
    events = 2 + len(json.dumps(GOOD)) // 12 + 1
    house.server.answer(say.ends(json.dumps(GOOD), after=events + 1))
    with pytest.raises(llm.StreamBroken):
        await house.model(entry={"retries": 0}).fill(lab.Finding, "?")


async def test_a_schema_that_an_endpoint_cannot_hold_a_model_to_goes_as_a_tool(house, lab) -> None:
    large = say.failure(400, "invalid_request_error", "The compiled grammar is too large")
    house.server.answer(large, say.fills(GOOD))
    filled = await house.model().fill(lab.Finding, "?")
    assert filled.message.summary == "it leaks"
    assert "output_config" in house.server.requests[0].body
    assert house.server.requests[1].body["tool_choice"]["name"] == "give_finding"


async def test_a_schema_with_too_many_choices_is_not_tried(house, lab) -> None:
    house.server.answer(say.failure(400, "invalid_request_error"))
    with pytest.raises(llm.ModelRejected):
        await house.model(entry={"retries": 0}).fill(lab.Everything, "?")
    assert "output_config" not in house.server.requests[0].body


async def test_the_fallback_is_asked_in_its_own_way(house, lab) -> None:
    house.server.always("claude-sonnet-5-5", say.overloaded())
    house.server.always("llama", say.fills(GOOD))
    at = {"url": house.server.url}
    models = llm.Models(
        {
            "a": llm.ModelEntry(
                endpoint=llm.Endpoint(name="one", **at), model="claude-sonnet-5-5", fallback=["b"]
            ),
            "b": llm.ModelEntry(
                endpoint=llm.Endpoint(name="two", structured="prompt", **at), model="llama"
            ),
        }
    )
    filled = await models["a"].fill(lab.Finding, "?")
    await models.close()
    assert filled.reply.fallback
    first, second = (each.body for each in house.server.requests)
    assert "output_config" in first
    assert "output_config" not in second
    assert "JSON schema" in second["system"]
