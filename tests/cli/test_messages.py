"""Durable messages from the command line."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(120)  # the first of them starts the house

_NUMBERS = itertools.count()


@pytest.fixture
def queue(weft) -> str:
    """A queue of this test, that nobody consumes."""
    name = f"cli-{next(_NUMBERS)}"
    assert weft("queues", "set", name).code == 0
    return name


def status(weft, queue: str, field: str = "depth") -> int:
    return int(weft("queues", "show", queue, "--json").json.get(field, 0))


def dead_letters(weft, queue: str) -> list[dict]:
    return weft("dead", "list", queue, "--json").json


def one_dead(weft, tools, text: str) -> dict:
    """A message that echo refused."""
    weft("send", "echo.Say", json.dumps({"text": text, "failWith": 3}))

    def found() -> list[dict]:
        return [
            letter
            for letter in dead_letters(weft, "echo")
            if letter["message"]["payload"].get("text") == text
        ]

    tools.wait_for(found)
    (letter,) = found()
    return letter


def test_a_sent_request_is_answered_when_that_is_waited_for(weft):
    told = weft("send", "echo.Say", '{"text": "hi"}', "--wait", "10s")
    assert told.json["text"] == "hi"


def test_an_answer_that_is_an_error_is_told(weft):
    told = weft("send", "echo.Say", '{"failWith": 9}', "--wait", "10s")
    assert told.code == 1
    assert "FAILED_PRECONDITION" in told.err


def test_a_message_waits_in_its_queue(weft, queue):
    sent = weft("send", queue, '{"order": 42}', "--id", "o1", "--json").json
    assert sent["id"] == "o1"
    assert not sent["duplicate"]
    assert weft("send", queue, '{"order": 42}', "--id", "o1", "--json").json["duplicate"]
    assert "accepted" in weft("send", queue, "{}", "--delay", "10m", "--priority", "high").out
    status = weft("queues", queue, "--json").json
    assert (status["depth"], status["delayed"]) == ("2", "1")


def test_a_topic_goes_to_those_who_subscribe(weft):
    assert "a.b" in weft("send", "--topic", "a.b", '{"order": 42}').out


def test_what_cannot_be_sent_is_said(weft):
    told = weft("send", "echo.Say", '{"txt": "hi"}')
    assert (told.code, '"txt"' in told.err, "--template" in told.err) == (2, True, True)
    told = weft("send", "support-triage.Classify", "{}")
    assert told.code == 1
    assert "weft call support-triage.Classify" in told.err
    told = weft("send", "nobody", "{}")
    assert told.code == 1
    assert "NOT_FOUND" in told.err
    assert weft("send").code == 2
    assert weft("send", "x", "{}", "--delay", "soon").code == 2
    assert weft("send", "--topic", "a", "{}", "--wait", "1s").code == 2


def test_a_template_is_a_message(weft):
    assert '"text": "",  // string' in weft("send", "echo.Say", "--template").out


def test_a_queue_shows_its_policy_and_takes_another(weft, queue):
    weft("queues", "set", queue, "--max-attempts", "3", "--publish-rate", "10")
    told = weft("queues", "set", queue, "--visibility-timeout", "2m", "--json").json["policy"]
    assert told["maxAttempts"] == 3
    assert told["visibilityTimeout"] == "120s"
    assert told["publishRate"] == {"perSecond": 10.0, "burst": 10}
    assert "publishRate" not in weft("queues", "set", queue, "--publish-rate", "0", "--json").json
    # Without options nothing is changed.
    assert weft("queues", "set", queue, "--json").json["policy"]["maxAttempts"] == 3
    shown = weft("queues", queue).out
    assert re.search(r"^max attempts +3$", shown, re.MULTILINE)
    assert re.search(r"^visibility timeout +2m 0s$", shown, re.MULTILINE)


def test_a_queue_is_paused_purged_and_removed(weft, queue):
    for _ in range(3):
        weft("send", queue, "{}")
    assert "paused" in weft("queues", "pause", queue).out
    assert weft("queues", queue, "--json").json["paused"]
    weft("queues", "resume", queue)
    assert "paused" not in weft("queues", queue, "--json").json
    assert "3 messages" in weft("queues", "purge", queue, "--yes").out
    assert status(weft, queue) == 0
    assert "removed" in weft("queues", "delete", queue, "--yes").out
    told = weft("queues", queue)
    assert told.code == 1
    assert "There is no queue" in told.err


def test_queues_are_listed(weft, queue):
    weft("send", queue, "{}")
    rows = weft("queues").out.splitlines()
    (row,) = [row.split() for row in rows if row.startswith(f"{queue} ")]
    assert row[1:4] == ["no", "consumer", "1"]
    names = [one["queue"] for one in weft("queues", "--json", "--pattern", "cli-*").json]
    assert queue in names
    assert not [name for name in names if not name.startswith("cli-")]


def test_a_table_of_queues_is_live_on_a_terminal(house, tools, queue):
    env = {**tools.environment(house.data), **house.environment()}
    ours, its = os.openpty()
    with tools.running("queues", env=env, stdout=its, stderr=its) as live:
        os.close(its)
        shown = b""
        # The second table is drawn over the first.
        while shown.count(f"{queue} ".encode()) < 2:
            shown += os.read(ours, 65_536)
        live.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # Linux ends a terminal that nobody holds with EIO
            while os.read(ours, 65_536):
                pass
        assert live.wait(20) == 130
    os.close(ours)
    code, text = tools.on_terminal(("queues", "--once"), env)
    assert (code, queue in text) == (0, True)


def test_a_dead_letter_is_shown_edited_and_requeued(weft, tools):
    letter = one_dead(weft, tools, "repair me")
    assert letter["reason"] == "INVALID_ARGUMENT"
    letter_id = letter["deadLetterId"]
    shown = weft("dead", "show", "echo", letter_id).json
    assert shown["message"]["payload"] == {"text": "repair me", "failWith": 3}
    changed = {**shown["message"], "payload": {"text": "repaired"}, "sender": "nobody"}
    told = weft("dead", "edit", "echo", letter_id, "--with", json.dumps(changed), "--json").json
    assert told["message"]["payload"] == {"text": "repaired"}
    assert told["message"]["sender"] == shown["message"]["sender"]
    new_id = told["deadLetterId"]
    acked = status(weft, "echo", "acked")
    assert "1 messages" in weft("dead", "requeue", "echo", new_id).out
    tools.wait_for(lambda: status(weft, "echo", "acked") > acked)
    assert new_id not in {one["deadLetterId"] for one in dead_letters(weft, "echo")}


def test_a_dead_letter_is_edited_in_an_editor(weft, tools, tmp_path: Path):
    letter_id = one_dead(weft, tools, "with an editor")["deadLetterId"]
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/"failWith": 3/"failWith": 0/\' "$1"\n')
    editor.chmod(0o755)
    weft.monkeypatch.setenv("VISUAL", "")
    weft.monkeypatch.setenv("EDITOR", str(editor))
    told = weft("dead", "edit", "echo", letter_id, "--requeue")
    assert told.code == 0, told.err
    assert "back in echo" in told.out
    weft.monkeypatch.setenv("EDITOR", "true")
    letter_id = one_dead(weft, tools, "left alone")["deadLetterId"]
    told = weft("dead", "edit", "echo", letter_id)
    assert (told.code, "Nothing was changed" in told.err) == (1, True)


def test_an_edit_that_is_no_message_is_refused(weft, tools):
    letter_id = one_dead(weft, tools, "badly edited")["deadLetterId"]
    for text, why in (
        ("{", "not JSON"),
        ('{"payload": {"txt": ""}, "method": "/weft.echo.v1.EchoService/Say"}', '"txt"'),
        ('{"colour": "red"}', "colour"),
        ('{"payload": "%"}', "base64"),
        ('{"payload": {}, "method": "/a.B/C"}', "Nobody in the registry"),
    ):
        told = weft("dead", "edit", "echo", letter_id, "--with", text)
        assert (told.code, why in told.err) == (2, True), told.err


def test_dead_letters_are_chosen_and_given_up(weft, tools):
    first = one_dead(weft, tools, "give me up")["deadLetterId"]
    assert "1 messages" in weft("dead", "discard", "echo", first).out
    one_dead(weft, tools, "me too")
    assert weft("dead", "discard", "echo").code == 2
    assert "0 messages" in weft("dead", "discard", "echo", "--reason", "EXPIRED", "--yes").out
    given_up = weft("dead", "discard", "echo", "--all", "--yes").out
    assert int(given_up.split()[0]) > 0
    assert dead_letters(weft, "echo") == []
    assert "No message is dead." in weft("dead", "list", "echo").out


def test_all_dead_letters_are_listed_in_a_table(weft, tools):
    one_dead(weft, tools, "in the table")
    shown = weft("dead", "list").out
    assert re.search(r"^echo +\S+ +INVALID_ARGUMENT +1 .*in the table", shown, re.MULTILINE)


def test_what_is_unknown_has_a_hint(weft, queue):
    told = weft("queues", f"{queue}x")
    assert told.code == 1
    assert "Did you mean" in told.err
    told = weft("dead", "show", queue, "1-1")
    assert told.code == 1
    assert "NOT_FOUND" in told.err


def test_queues_are_completed(weft, queue):
    assert queue in weft.offers("queues pause cli-")
    assert queue in weft.offers("tail cli-")


def test_the_broker_is_measured(weft):
    found = weft("bench", "broker", "--duration", "300ms", "--rate", "100", "--json").json
    assert found["messages"] > 100
    assert found["publish_per_second"] > 0
    assert 0 < found["calm_handled_p50"] <= found["calm_handled_p99"]
    shown = weft("bench", "broker", "--duration", "200ms", "--rate", "100").out
    assert "publish to acknowledged" in shown
    assert not [one for one in weft("queues", "--json").json if one["queue"].startswith("bench-")]


def test_without_a_broker_it_is_said_what_to_do(weft):
    weft.monkeypatch.setenv("WEFT_BROKER", "127.0.0.1:1")
    told = weft("queues")
    assert told.code == 1
    assert "No broker can be reached at 127.0.0.1:1" in told.err
    assert "WEFT_BROKER" in told.err
    assert "No broker is set" in weft("queues", "--broker", "").err


def test_the_first_broker_that_is_there_is_used(weft, house):
    weft.monkeypatch.setenv("WEFT_BROKER", f"127.0.0.1:1,{house.environment()['WEFT_BROKER']}")
    assert weft("queues").code == 0
