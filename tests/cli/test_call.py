from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)  # the first of them starts the house


def test_a_unary_skill_prints_its_answer(weft):
    assert weft("call", "echo.Say", '{"text": "hi"}').json["text"] == "hi"


def test_streamed_answers_are_lines(weft):
    told = weft("call", "echo.Repeat", '{"text": "hi", "count": 3}')
    assert [line["text"] for line in told.lines] == ["hi"] * 3


def test_streams_of_requests_are_documents(weft):
    documents = '{"text": "a"}\n{"text": "b"}'
    assert weft("call", "echo.Gather", documents).json == {"texts": ["a", "b"]}
    assert weft("call", "echo.Talk", documents).lines == [{"text": "a"}, {"text": "b"}]


def test_a_request_comes_from_a_file_or_standard_input(weft, tmp_path: Path):
    request = tmp_path / "request.json"
    request.write_text('{"text": "from a file", // with a comment\n}')
    assert weft("call", "echo.Say", f"@{request}").json["text"] == "from a file"
    weft.monkeypatch.setattr("sys.stdin", io.StringIO('{"text": "from input"}'))
    assert weft("call", "echo.Say", "-").json["text"] == "from input"


def test_a_template_is_a_request(weft):
    template = weft("call", "echo.Say", "--template").out
    assert re.search(r'"text": "",  // string', template)
    filled = template.replace('"text": ""', '"text": "filled in"').replace('"1.5s"', '"0s"')
    assert weft("call", "echo.Say", filled).json["text"] == "filled in"


def test_a_template_shows_lists_messages_enums_and_what_is_required(weft):
    template = weft("call", "support-quality.Review", "--template").out
    assert '"question": "",  // string, required' in template
    assert '"answer": {  // Answer, required' in template
    assert '"passages": [{  // list of Passage' in template
    assert "ORIGIN_UNSPECIFIED | ORIGIN_EXTRACTIVE" in template


def test_an_unknown_field_is_named(weft):
    told = weft("call", "echo.Say", '{"txt": "hi"}')
    assert told.code == 2
    assert '"txt"' in told.err
    assert "--template" in told.err


def test_what_is_not_json_is_pointed_at(weft):
    told = weft("call", "echo.Say", '{"text": \n oops}')
    assert told.code == 2
    assert "line 2" in told.err


def test_one_request_means_one(weft):
    told = weft("call", "echo.Say", '{"text": "a"} {"text": "b"}')
    assert told.code == 2
    assert "takes one request, 2 were given" in told.err


def test_an_unknown_agent_fails_at_once_with_a_hint(weft):
    weft("agents")  # what is imported is imported
    began = time.perf_counter()
    told = weft("call", "ekho.Say", "{}")
    assert time.perf_counter() - began < 1
    assert told.code == 1
    assert "Did you mean 'echo'?" in told.err


def test_an_unknown_skill_fails_with_those_that_are(weft):
    told = weft("call", "echo.Sey", "{}")
    assert told.code == 1
    assert "Did you mean 'Say'?" in told.err
    assert "Gather" in told.err


def test_a_deadline_is_kept(weft):
    told = weft("call", "echo.Say", '{"delay": "10s"}', "--timeout", "0.2")
    assert told.code == 1
    assert "DEADLINE_EXCEEDED" in told.err


def test_what_the_agent_refuses_is_told_with_the_field(weft):
    told = weft("call", "echo.Repeat", '{"count": -1}')
    assert told.code == 1
    assert "INVALID_ARGUMENT" in told.err
    assert "count: must be" in told.err


def test_a_method_may_be_named_in_full(weft):
    told = weft("call", "echo.weft.echo.v1.EchoService/Say", '{"text": "hi"}')
    assert told.json["text"] == "hi"


def test_names_are_completed_from_the_registry(weft):
    assert weft.offers("call echo.S") == {"echo.Say", "echo.SayOnce"}
    assert weft.offers("resolve support-tri") == {"support-triage"}
    assert "weft.echo.v1.EchoService" in weft.offers("resolve weft.e")
    assert weft.offers("agents serve support --only support-q") == {"support-quality"}
    weft.monkeypatch.setenv("WEFT_REGISTRY", "127.0.0.1:1")
    assert weft.offers("call echo.S") == set()


def test_a_call_can_be_traced(weft, tools):
    weft("call", "echo.Say", '{"text": "traced"}')

    def listed() -> list[str]:
        return [trace["name"] for trace in weft("trace", "--json").json]

    tools.wait_for(lambda: "weft.echo.v1.EchoService/Say" in listed())
    assert json.loads(weft("trace", "--json", "--limit", "1").out)
