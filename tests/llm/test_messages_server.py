"""The server that stands in for models, by plain HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import sys

import httpx
import pytest

from weft.testing.messages_server import MessagesServer, scenarios

ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def schema(of: dict) -> dict:
    return {"output_config": {"format": {"type": "json_schema", "schema": of}}}


@pytest.fixture
async def http(server):
    async with httpx.AsyncClient(base_url=server.url) as client:
        yield client


async def ask(http, **further) -> dict:
    answer = await http.post("/v1/messages", json={**ASKED, **further})
    return answer.json()


async def test_it_says_back_what_it_is_asked(server, http) -> None:
    answer = await ask(http)
    assert answer["content"] == [{"type": "text", "text": "hello"}]
    assert answer["stop_reason"] == "end_turn"
    assert answer["usage"]["output_tokens"] > 0
    assert server.requests[0].body == ASKED


async def test_a_stream_has_the_events_of_the_api(http) -> None:
    answer = await http.post("/v1/messages", json={**ASKED, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    kinds = re.findall(r"^event: (.*)$", answer.text, re.MULTILINE)
    assert kinds == [
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]
    for line in re.findall(r"^data: (.*)$", answer.text, re.MULTILINE):
        json.loads(line)


async def test_it_gives_the_least_value_of_a_schema(http) -> None:
    wanted = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "how": {"enum": ["HIGH", "LOW"]},
            "many": {"type": "array", "items": {"type": "integer"}},
            "maybe": {"type": "boolean"},
        },
        "required": ["name", "how", "many"],
    }
    answer = await ask(http, **schema(wanted))
    value = {"name": "0", "how": "HIGH", "many": []}
    assert json.loads(answer["content"][0]["text"]) == value
    tool = {"name": "give", "input_schema": wanted}
    answer = await ask(http, tools=[tool], tool_choice={"type": "tool", "name": "give"})
    assert answer["content"][0]["input"] == value
    assert answer["stop_reason"] == "tool_use"


async def test_scenarios_come_in_order_by_model_and_by_name(server, http) -> None:
    server.answer(scenarios.text("for all"))
    server.answer(scenarios.text("for m"), model="m")
    server.always("m", scenarios.text("always"))
    named = {"metadata": {"user_id": "scenario:refuses"}}
    told = [await ask(http) for _ in range(3)]
    assert [each["content"][0]["text"] for each in told] == ["for m", "for all", "always"]
    assert (await ask(http, **named))["stop_reason"] == "refusal"
    overloaded = await http.post("/v1/messages", json={**ASKED, "model": "overloaded"})
    assert overloaded.status_code == 529
    limited = await http.post("/v1/messages", json={**ASKED, "model": "rate-limited"})
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "30")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": None},
        {"messages": []},
        {"temperature": 0.1},
        {
            "messages": [
                *ASKED["messages"],
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]},
            ]
        },
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "x"}]}]},
    ],
)
async def test_it_refuses_what_the_api_refuses(http, wrong) -> None:
    answer = await http.post("/v1/messages", json={**ASKED, **wrong})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


async def test_what_is_no_request_is_told(http) -> None:
    assert (await http.post("/v1/messages", content=b"{")).status_code == 400
    assert (await http.get("/v1/models")).status_code == 404
    counted = await http.post("/v1/messages/count_tokens", json=ASKED)
    assert counted.json()["input_tokens"] > 0


async def test_other_servers_know_less() -> None:
    async with (
        MessagesServer(flavour="ollama") as server,
        httpx.AsyncClient(base_url=server.url) as http,
    ):
        answer = await ask(http, temperature=0.5, **schema({"type": "object", "properties": {}}))
        assert answer["content"][0]["text"] == "hello"


async def test_it_runs_by_itself(tmp_path) -> None:
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps({"m": {"text": "from the file"}}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "weft.testing.messages_server", "--port", "0"),
        *("--answers", str(answers)),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        line = (await process.stderr.readline()).decode()
        url = line.split()[-1]
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await ask(http))["content"][0]["text"] == "from the file"
    finally:
        process.terminate()
        await process.communicate()
