"""Each trap of the SDK, by its number in the module docstring of `weft.agents.llm.wire.client` and beyond."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from weft import rpc
from weft.agents import llm
from weft.rpc.testing import wait_until
from weft.testing.messages_server import scenarios as say

SONNET = "claude-sonnet-5-5"


async def fails(kind, asking):
    with pytest.raises(kind) as failed:
        await asking
    assert failed.value.metadata["model"] == SONNET
    assert failed.value.metadata["endpoint"] == "test"
    return failed.value


async def warmed(house, model) -> None:
    """The first request imports the SDK, which takes longer than the deadlines here."""
    house.server.answer(say.text("hello"))
    await model.generate("hi")
    house.server.forget()


async def test_retry_after_beyond_the_deadline_is_not_slept_out(house) -> None:
    house.server.answer(say.rate_limited(3600))
    model = house.model(settings={"timeout": timedelta(seconds=20)})
    began = time.monotonic()
    failed = await fails(llm.ModelRateLimited, model.generate("hi"))
    assert time.monotonic() - began < 15
    assert failed.code.name == "RESOURCE_EXHAUSTED"
    assert failed.retry_after == timedelta(hours=1)
    assert len(house.server.requests) == 1


async def test_retry_after_within_the_deadline_is_kept(house) -> None:
    house.server.answer(say.rate_limited(0.3), say.text("hello"))
    began = time.monotonic()
    reply = await house.model().generate("hi")
    assert 0.3 <= time.monotonic() - began < 2
    assert (reply.text, reply.attempts) == ("hello", 2)


async def test_an_error_in_the_stream_is_what_its_type_says(house) -> None:
    model = house.model(entry={"retries": 0})
    for error, kind in (
        ("overloaded_error", llm.ModelOverloaded),
        ("rate_limit_error", llm.ModelRateLimited),
        ("api_error", llm.ModelUnavailable),
        ("never_heard_of", llm.ModelUnavailable),
    ):
        house.server.answer(say.errs(error=error))
        await fails(kind, model.generate("hi"))


async def test_an_error_in_the_stream_is_retried_like_one_before_it(house) -> None:
    house.server.answer(say.errs(), say.text("hello"))
    assert (await house.model().generate("hi")).text == "hello"


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("how", [say.ends, say.drops])
async def test_an_answer_that_breaks_off_is_no_answer(house, how, after) -> None:
    house.server.answer(how("not all of it", after=after))
    await fails(llm.StreamBroken, house.model(entry={"retries": 0}).generate("hi"))


async def test_an_answer_whose_end_event_is_missing_is_no_answer(house) -> None:
    # Everything is there but message_stop.
    house.server.answer(say.ends("short", after=5))
    await fails(llm.StreamBroken, house.model(entry={"retries": 0}).generate("hi"))


@pytest.mark.parametrize("after", [-1, 0, 3])
async def test_a_stall_is_an_error_of_the_mesh(house, after) -> None:
    house.server.answer(say.stalls(after=after))
    model = house.model(endpoint={"idle": timedelta(seconds=0.3)}, entry={"retries": 0})
    await fails(llm.ModelStalled, model.generate("hi"))


@pytest.mark.parametrize("after", [-1, 3])
async def test_the_deadline_ends_a_stall_that_is_shorter_than_the_patience(house, after) -> None:
    model = house.model(endpoint={"idle": timedelta(seconds=30)})
    await warmed(house, model)
    house.server.answer(*[say.stalls(after=after)] * 3)
    began = time.monotonic()
    with rpc.Deadline.after(timedelta(seconds=0.5)).applied():
        failed = await fails(llm.ModelTooSlow, model.generate("hi"))
    assert time.monotonic() - began < 2
    assert failed.code.name == "DEADLINE_EXCEEDED"
    await wait_until(lambda: house.server.cut == 1)  # the server is not left writing


async def test_the_deadline_is_for_all_attempts_together(house) -> None:
    model = house.model(
        endpoint={"idle": timedelta(seconds=0.4)}, settings={"timeout": timedelta(seconds=1)}
    )
    await warmed(house, model)
    house.server.answer(*[say.stalls()] * 9)
    began = time.monotonic()
    with pytest.raises(rpc.Error):
        await model.generate("hi")
    assert time.monotonic() - began < 2


async def test_events_without_event_lines_are_told_for_what_they_are(house) -> None:
    house.server.answer(say.without_event_lines("hello"))
    failed = await fails(llm.AnswerMalformed, house.model(entry={"retries": 0}).generate("hi"))
    assert "no event" in failed.message


async def test_an_event_that_is_no_json_is_told_for_what_it_is(house) -> None:
    house.server.answer(say.broken())
    await fails(llm.AnswerMalformed, house.model(entry={"retries": 0}).generate("hi"))


async def test_each_request_of_a_tool_loop_has_the_whole_conversation(house, tools) -> None:
    house.server.answer(say.tool("weigh", {"what": "a duck"}), say.text("2 kg"))
    worked = await house.model().run("How heavy is a duck?", [tools.Weigh()])
    assert worked.reply.text == "2 kg"
    first, second = (each.body for each in house.server.requests)
    assert len(first["messages"]) == 1
    assert [each["role"] for each in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][0] == first["messages"][0]
    assert "thread" not in second
    assert not any("anthropic-beta" in each.headers for each in house.server.requests)


async def test_an_answer_has_its_blocks_as_they_came(house) -> None:
    blocks = (
        {"type": "thinking", "thinking": "It may be. " * 9, "signature": "s"},
        {"type": "text", "text": "A quite long answer. " * 9},
        {"type": "tool_use", "id": "toolu_0", "name": "weigh", "input": {"what": "a duck"}},
    )
    house.server.answer(say.Scenario(blocks=blocks, stop="tool_use"))
    assert (await house.model().generate("hi")).blocks == blocks


async def test_thinking_that_breaks_off_is_estimated_as_well(house) -> None:
    thinking = {"type": "thinking", "thinking": "It may be. " * 40, "signature": ""}
    house.server.answer(say.Scenario(blocks=(thinking,), fault="end", after=3))
    with llm.metered() as meter, pytest.raises(llm.StreamBroken):
        await house.model(entry={"retries": 0}).generate("hi")
    assert (meter.usage.output, meter.usage.estimated) == (len(thinking["thinking"]) // 4, True)


async def test_a_long_answer_can_be_asked_for(house) -> None:
    house.server.answer(say.text("hello"))
    reply = await house.model().generate("hi", max_tokens=64_000)
    assert reply.text == "hello"
    assert house.server.requests[0].body["stream"] is True


async def test_a_server_that_says_not_to_retry_is_obeyed(house) -> None:
    headers = {"x-should-retry": "false"}
    house.server.answer(say.failure(529, "overloaded_error", headers=headers), say.text("hello"))
    await fails(llm.ModelOverloaded, house.model().generate("hi"))
    assert len(house.server.requests) == 1


@pytest.mark.parametrize(
    ("status", "error", "kind", "requests"),
    [
        (400, "invalid_request_error", llm.ModelRejected, 1),
        (401, "authentication_error", llm.ModelCredentials, 1),
        (402, "billing_error", llm.ModelCredentials, 1),
        (403, "permission_error", llm.ModelCredentials, 1),
        (404, "not_found_error", llm.ModelRejected, 1),
        (413, "request_too_large", llm.ModelRejected, 1),
        (422, "", llm.ModelRejected, 1),
        (408, "", llm.ModelUnavailable, 2),
        (500, "api_error", llm.ModelUnavailable, 2),
        (502, "", llm.ModelUnavailable, 2),
        (529, "overloaded_error", llm.ModelOverloaded, 2),
    ],
)
async def test_statuses_are_told_apart(house, status, error, kind, requests) -> None:
    house.server.answer(*[say.failure(status, error, "secret of the prompt")] * 2)
    failed = await fails(kind, house.model(entry={"retries": 1}).generate("hi"))
    assert len(house.server.requests) == requests
    assert "secret" not in f"{failed.message} {failed.metadata}"
    assert failed.metadata["request_id"].startswith("req_")


async def test_keys_of_the_environment_go_nowhere(house, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-of-another-endpoint")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "secret-of-another-endpoint")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Team: secret-of-another-endpoint")
    house.server.answer(say.text("hello"))
    await house.model().generate("hi")
    assert "secret" not in str(house.server.requests[0].headers)


async def test_a_key_goes_as_the_endpoint_wants_it(house) -> None:
    house.server.answer(say.text("hello"))
    await house.model(endpoint={"key": "k-1", "key_header": "X-Api-Key"}).generate("hi")
    headers = house.server.requests[0].headers
    assert headers["authorization"] == "Bearer k-1"
    assert headers["x-api-key"] == "k-1"


async def test_a_prompt_is_not_sent_on_by_a_redirect(house) -> None:
    elsewhere = f"{house.server.url}/elsewhere"
    moved = say.failure(307, "", headers={"location": elsewhere})
    house.server.answer(moved)
    await fails(llm.ModelRejected, house.model(entry={"retries": 0}).generate("hi"))
    assert [each.path for each in house.server.requests] == ["/v1/messages"]


async def test_temperature_goes_where_there_is_one(house) -> None:
    house.server.always(SONNET, say.text("hello"))
    await house.model(settings={"temperature": 0.2}).generate("hi")
    assert "temperature" not in house.server.requests[0].body


async def test_a_caller_that_gives_up_is_followed_at_once(house) -> None:
    house.server.answer(say.stalls(after=3))
    asking = asyncio.create_task(house.model().generate("hi"))
    await wait_until(lambda: house.server.requests)
    asking.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert time.monotonic() - began < 1
    await wait_until(lambda: house.server.cut == 1)


async def test_who_cannot_be_reached_is_unavailable(house) -> None:
    await house.server.stop()
    await fails(llm.ModelUnavailable, house.model(entry={"retries": 0}).generate("hi"))


async def test_connecting_may_take_as_long_as_the_endpoint_says(house) -> None:
    model = house.model(endpoint={"connect": timedelta(0)}, entry={"retries": 0})
    await fails(llm.ModelUnavailable, model.generate("hi"))
    assert house.server.requests == []


async def test_a_refusal_is_no_answer(house) -> None:
    house.server.answer(say.refuses("I would rather not"))
    failed = await fails(llm.ModelRefused, house.model().generate("hi"))
    assert failed.code.name == "FAILED_PRECONDITION"
    assert len(house.server.requests) == 1


async def test_an_answer_that_is_cut_off_is_no_whole_one(house) -> None:
    house.server.answer(*[say.cut_off("It was a dark and")] * 2)
    failed = await fails(llm.AnswerCutOff, house.model().generate("hi"))
    assert failed.text == "It was a dark and"
    reply = await house.model().generate("hi", cut_off=True)
    assert (reply.text, reply.stop) == ("It was a dark and", "max_tokens")
