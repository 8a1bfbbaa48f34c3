from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from weft import rpc
from weft.agents import llm
from weft.testing.messages_server import scenarios as say


def told(house, number: int = 1):
    """What the model was told of its tools."""
    return house.server.requests[number].body["messages"][-1]["content"]


async def test_tools_are_called_and_told(house, tools) -> None:
    house.server.answer(
        say.tool("weigh", {"what": "a duck"}, said="Let me see.").with_usage(input_tokens=30),
        say.text("2 kg").with_usage(input_tokens=50),
    )
    tool = tools.Weigh()
    worked = await house.model().run("How heavy is a duck?", [tool])
    assert (worked.reply.text, worked.steps) == ("2 kg", 2)
    assert tool.asked == [{"what": "a duck"}]
    assert told(house) == [
        {"type": "tool_result", "tool_use_id": "toolu_0", "content": '{"kg": 2}'}
    ]
    assert [call.use.name for call in worked.calls] == ["weigh"]
    assert worked.reply.usage.input == 80
    assert worked.reply.attempts == 2


async def test_tools_that_are_wanted_together_run_together(house, tools) -> None:
    house.server.answer(
        say.tools(("weigh", {"what": "a"}), ("weigh", {"what": "b"})), say.text("done")
    )
    gate = asyncio.Barrier(2)

    class Meeting(tools.Weigh):
        async def __call__(self, arguments):
            async with asyncio.timeout(5):
                await gate.wait()
            return await super().__call__(arguments)

    worked = await house.model().run("?", [Meeting()])
    assert [call.is_error for call in worked.calls] == [False, False]
    assert [each["tool_use_id"] for each in told(house)] == ["toolu_0", "toolu_1"]


async def test_what_a_tool_raises_is_not_told(house, tools, caplog) -> None:
    house.server.answer(say.tool("weigh", {"what": "a"}), say.text("I could not"))
    failing = tools.Weigh(failing=RuntimeError("password=hunter2"))
    worked = await house.model().run("?", [failing])
    assert told(house)[0]["is_error"] is True
    assert told(house)[0]["content"] == "The tool failed."
    assert worked.calls[0].is_error
    assert "hunter2" not in str([each.body for each in house.server.requests])
    assert "hunter2" in caplog.text


async def test_an_error_of_the_mesh_is_told_as_it_was_written(house, tools) -> None:
    house.server.answer(say.tool("weigh", {"what": "a"}), say.text("I may not"))
    denied = rpc.PermissionDenied("You lack tools.weigh.")
    await house.model().run("?", [tools.Weigh(failing=denied)])
    assert told(house)[0]["content"] == "PERMISSION_DENIED: You lack tools.weigh."


@pytest.mark.parametrize("sent", ['{"what": "a', "[1]", "nonsense"])
async def test_malformed_arguments_never_reach_a_tool(house, tools, sent) -> None:
    house.server.answer(say.tool("weigh", sent), say.text("sorry"))
    tool = tools.Weigh()
    await house.model().run("?", [tool])
    assert tool.asked == []
    assert told(house)[0]["is_error"] is True
    assert "arguments" in told(house)[0]["content"]


async def test_a_tool_that_is_not_there_is_told(house, tools) -> None:
    house.server.answer(say.tool("measure", {}), say.text("sorry"))
    await house.model().run("?", [tools.Weigh()])
    assert told(house)[0]["content"] == "There is no tool 'measure'; there are: weigh."


async def test_it_ends_when_the_model_wants_too_many(house, tools) -> None:
    house.server.always("claude-sonnet-5-5", say.tool("weigh", {"what": "a"}))
    tool = tools.Weigh()
    with pytest.raises(llm.TooManySteps):
        await house.model().run("?", [tool], steps=3)
    assert len(tool.asked) == 3
    assert len(house.server.requests) == 4


async def test_a_tool_that_hangs_ends_with_the_deadline(house, tools) -> None:
    house.server.always("claude-sonnet-5-5", say.tool("weigh", {"what": "a"}))

    class Hanging(tools.Weigh):
        async def __call__(self, arguments):
            await asyncio.Event().wait()

    began = time.monotonic()
    with pytest.raises(rpc.DeadlineExceeded):
        await house.model(settings={"timeout": timedelta(seconds=2)}).run("?", [Hanging()])
    assert time.monotonic() - began < 10


async def test_an_answer_that_breaks_off_while_it_wants_a_tool_calls_none(house, tools) -> None:
    wanting = say.tool("weigh", {"what": "a duck of some weight"})
    house.server.answer(replace(wanting, fault="end", after=4))
    tool = tools.Weigh()
    with pytest.raises(llm.StreamBroken):
        await house.model(entry={"retries": 0}).run("?", [tool])
    assert tool.asked == []


async def test_a_budget_that_a_tool_spends_ends_the_loop(house, tools) -> None:
    house.server.answer(say.tool("weigh", {"what": "a"}))
    with pytest.raises(llm.BudgetSpent):
        await house.model().run("?", [tools.Weigh(failing=llm.BudgetSpent())])


async def test_the_whole_conversation_is_kept_in_the_cache(house, tools) -> None:
    house.server.answer(say.tool("weigh", {"what": "a"}), say.text("done"))
    await house.model().run("How heavy is it? " * 100, [tools.Weigh()], system="You weigh.")
    assert house.server.requests[1].body["cache_control"] == {"type": "ephemeral"}
