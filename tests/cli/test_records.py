"""Messages of the past from the command line."""

from __future__ import annotations

import base64
import itertools
import json
import signal
import subprocess

import pytest

pytestmark = pytest.mark.timeout(120)  # the first of them starts the house

_NUMBERS = itertools.count()


@pytest.fixture
def queue(weft) -> str:
    """A queue of this test, that nobody consumes."""
    name = f"past-{next(_NUMBERS)}"
    assert weft("queues", "set", name).code == 0
    if "UNIMPLEMENTED" in weft("replay", name).err:
        pytest.skip("this broker has no archive")
    return name


def test_messages_are_replayed_and_published_again(weft, queue):
    for number in range(3):
        weft("send", queue, f'{{"number": {number}}}', "--key", "k")
    lines = weft("replay", queue, "--json").lines
    assert [line["message"]["payload"]["number"] for line in lines] == [0, 1, 2]
    assert "live" in weft("replay", queue, "--limit", "1").out
    other = f"{queue}-again"
    weft("queues", "set", other)
    assert "3 messages" in weft("replay", queue, "--to", other).out
    again = weft("replay", other, "--json").lines
    assert [line["message"]["payload"]["number"] for line in again] == [0, 1, 2]
    assert {line["message"]["key"] for line in again} == {"k"}
    assert int(weft("queues", queue, "--json").json["depth"]) == 3
    assert weft("replay", queue, "--to", other, "--keep-ids", "--json").json["published"] == 3
    assert weft("replay", queue, "--to", other, "--keep-ids", "--json").json["published"] == 0


@pytest.mark.usefixtures("queue")
def test_what_is_handled_is_replayed_with_its_type(weft, tools):
    sent = weft("send", "echo.Say", '{"text": "kept"}', "--json").json

    def archived() -> list[dict]:
        return weft("replay", "echo", "--id", sent["id"], "--outcome", "acked", "--json").lines

    tools.wait_for(archived)
    (record,) = archived()
    assert record["message"]["payload"] == {"text": "kept"}
    assert record["outcome"] == "OUTCOME_ACKED"


def test_new_messages_are_followed(weft, house, tools, queue):
    weft("send", queue, '{"number": 0}')
    with tools.running(
        *("tail", queue, "--limit", "2", "--since", "1m"),
        env=tools.environment(house.data, **house.environment()),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        weft("send", queue, '{"number": 1}')
        second = json.loads(process.stdout.readline())
        assert process.wait(20) == 0
    assert [one["message"]["payload"]["number"] for one in (first, second)] == [0, 1]
    assert int(weft("queues", queue, "--json").json["depth"]) == 2


@pytest.mark.usefixtures("queue")
def test_topics_are_followed(weft, house, tools):
    with tools.running(
        *("tail", "followed.*", "--since", "1m"),
        env=tools.environment(house.data, **house.environment()),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        weft("send", "--topic", "followed.one.deeper", '{"number": 0}')
        weft("send", "--topic", "followed.one", '{"number": 1}')
        found = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert found["message"]["payload"] == {"number": 1}


def test_payloads_of_unknown_types_are_shown_as_bytes(weft, queue):
    weft("send", "echo.Say", '{"text": "hi"}', "--to", queue)
    weft.monkeypatch.setenv("WEFT_REGISTRY", "127.0.0.1:1")
    told = weft("replay", queue, "--json")
    (record,) = told.lines
    assert base64.b64decode(record["message"]["payload"]) == b"\n\x02hi"
    assert "registry" in told.err
