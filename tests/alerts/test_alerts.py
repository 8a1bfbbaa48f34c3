"""`weft alerts`: what Prometheus and Alertmanagers post, as Discord, Slack and plain receivers take it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.drills.receiver import Receiver, receiving
from tests.lifetime import ending_with_parent

from weft.alerts import FORMS, Alert, Board
from weft.alerts.board import MOST, read
from weft.rpc.testing import wait_until
from weft.webhooks import new_secret, parse_secret, sign

NOW = datetime.now(UTC)
SOON = timedelta(seconds=20)


def posted(*, ends: datetime, **labels: str) -> dict[str, Any]:
    """An alert as Prometheus 2.42 posts it."""
    return {
        "annotations": {
            "summary": "No instance of the agent <echo> & co is in service.",
            "runbook_url": "docs/runbooks/WeftAgentDown.md",
        },
        "endsAt": ends.isoformat(),
        "startsAt": NOW.isoformat(),
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
        "labels": {"alertname": "WeftAgentDown", "agent": "echo", "severity": "page", **labels},
    }


@contextlib.asynccontextmanager
async def told(receiver: Receiver, form: str, **more: str) -> AsyncIterator[httpx.AsyncClient]:
    """The command, and a client of it."""
    command = [
        sys.executable,
        "-m",
        "weft.cli",
        "alerts",
        "--listen",
        "127.0.0.1:0",
        "--format",
        form,
    ]
    environment = {**os.environ, "WEFT_ALERTS_TO": receiver.url, **more}
    process = await asyncio.create_subprocess_exec(
        *ending_with_parent(command), env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"ready: " not in (line := await process.stderr.readline()):
                assert line, "it did not start"
        found = re.search(r"address (\S+)", line.decode())
        assert found is not None
        async with httpx.AsyncClient(base_url=f"http://{found[1]}", trust_env=False) as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = await process.communicate(), None
        assert process.returncode == 0
        assert b"/hook/token" not in (said[1] or b""), "the URL is a secret"


async def test_discord_is_told_once_when_it_begins_and_once_when_it_ends():
    async with receiving() as receiver, told(receiver, "discord") as client:
        later = datetime.now(UTC) + timedelta(minutes=4)
        for _ in range(3):  # as Prometheus does, again and again
            answer = await client.post("/api/v2/alerts", json=[posted(ends=later)])
            assert answer.status_code == 200
        await wait_until(lambda: receiver.told, SOON)
        assert [a["labels"]["agent"] for a in (await client.get("/api/v2/alerts")).json()] == [
            "echo"
        ]
        await client.post("/api/v2/alerts", json=[posted(ends=datetime.now(UTC))])
        await wait_until(lambda: len(receiver.told) == 2, SOON)
        assert (await client.get("/api/v2/alerts")).json() == []
    (_, firing), (_, resolved) = receiver.told
    (embed,) = firing["embeds"]
    assert embed["title"] == "FIRING: WeftAgentDown"
    assert embed["description"].endswith("Runbook: docs/runbooks/WeftAgentDown.md")
    assert {"name": "agent", "value": "echo", "inline": True} in embed["fields"]
    assert firing["allowed_mentions"] == {"parse": []}
    assert resolved["embeds"][0]["title"] == "RESOLVED: WeftAgentDown"
    assert resolved["embeds"][0]["color"] != embed["color"]


async def test_slack_is_told_what_an_alertmanager_posts():
    async with receiving() as receiver, told(receiver, "slack") as client:
        # Version 4 of an Alertmanager's webhook; a firing one has Go's zero time as its end.
        alert = posted(ends=NOW) | {"endsAt": "0001-01-01T00:00:00Z", "status": "firing"}
        body = {"version": "4", "status": "firing", "receiver": "weft", "alerts": [alert]}
        assert (await client.post("/webhook", json=body)).status_code == 200
        await wait_until(lambda: receiver.told, SOON)
        alert |= {"status": "resolved", "endsAt": datetime.now(UTC).isoformat()}
        await client.post("/webhook", json=body)
        await wait_until(lambda: len(receiver.told) == 2, SOON)
    (_, firing), (_, resolved) = receiver.told
    assert firing["text"] == "FIRING: WeftAgentDown"
    (attachment,) = firing["attachments"]
    assert "&lt;echo&gt; &amp; co" in attachment["text"]
    assert re.fullmatch(r"#[0-9a-f]{6}", attachment["color"])
    assert {"title": "agent", "value": "echo", "short": True} in attachment["fields"]
    assert resolved["text"] == "RESOLVED: WeftAgentDown"


async def test_json_is_signed_and_tried_again():
    secret = new_secret()
    async with receiving() as receiver:
        receiver.statuses = [503]
        async with told(receiver, "json", WEFT_ALERTS_SECRET=secret) as client:
            later = datetime.now(UTC) + timedelta(minutes=4)
            await client.post("/api/v2/alerts", json=[posted(ends=later)])
            await wait_until(lambda: receiver.told, SOON)
    headers, body = receiver.told[0]
    assert body["type"] == "alert.firing"
    assert body["data"]["labels"]["agent"] == "echo"
    stamp = int(headers["webhook-timestamp"])
    signed = sign(parse_secret(secret), headers["webhook-id"], stamp, receiver.raw[0])
    assert headers["webhook-signature"] == signed


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"nonsense", "JSON"),
        (b'{"status": "firing"}', "alerts"),
        (b'[{"labels": {}}]', "alerts[0].labels"),
        (b'[{"labels": {"a": 1}}]', "alerts[0].labels"),
        (b'[{"labels": {"a": "b"}, "endsAt": "soon"}]', "alerts[0].endsAt"),
        (b"[" + b" " * 5_000_000 + b"]", "bytes"),
    ],
)
async def test_what_is_none_is_refused(body: bytes, says: str):
    from weft.alerts import App, Outbox

    app = App(Board(), Outbox("https://example.org/"), FORMS["json"])
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.post("/api/v2/alerts", content=body)
        assert answer.status_code in {400, 413}
        assert says in str(answer.json()) or "field" in str(answer.json()) or answer.json()["error"]
        assert (await client.get("/elsewhere")).status_code == 404
        assert (await client.put("/webhook")).status_code == 405


def alert(**labels: str) -> Alert:
    return Alert(labels=labels, annotations={}, starts=NOW, ends=NOW + timedelta(minutes=1))


def test_what_nobody_tells_of_any_more_ends():
    board = Board()
    assert board.take([alert(alertname="a")], NOW) == [alert(alertname="a")]
    assert board.lapse(NOW) == []
    assert board.lapse(NOW + timedelta(minutes=2)) == [alert(alertname="a")]
    assert board.firing() == []


def test_what_never_fired_does_not_end():
    past = posted(ends=NOW - timedelta(minutes=1))
    assert Board().take(read([past], NOW), NOW) == []


def test_there_is_an_end_to_what_is_kept():
    board = Board()
    news = board.take((alert(alertname=str(n)) for n in range(MOST + 10)), NOW)
    assert len(news) == len(board.firing()) == MOST


@pytest.mark.parametrize("form", sorted(FORMS))
def test_forms_keep_to_the_limits_of_their_receivers(form: str):
    labels = {f"label{n}": "@everyone <!channel> " + "x" * 3_000 for n in range(60)}
    long = Alert(
        labels=labels,
        annotations={"summary": "y" * 4_000, "description": "z" * 4_000},
        starts=NOW,
        ends=NOW,
    )
    made = FORMS[form](long, True)
    if form == "discord":
        (embed,) = made["embeds"]
        assert len(embed["title"]) <= 256
        assert len(embed["description"]) <= 4_096
        assert len(embed["fields"]) <= 25
        assert all(len(each["value"]) <= 1_024 for each in embed["fields"])
        parts = [embed["title"], embed["description"]]
        parts += [text for each in embed["fields"] for text in (each["name"], each["value"])]
        assert sum(map(len, parts)) <= 6_000
        assert made["allowed_mentions"] == {"parse": []}
    if form == "slack":
        assert "<!channel>" not in str(made)


def test_whom_to_tell_must_be_said(tmp_path: Path, monkeypatch, capsys):
    from weft.cli import main

    monkeypatch.delenv("WEFT_ALERTS_TO", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["alerts"])
    assert ended.value.code == 2
    assert "WEFT_ALERTS_TO" in capsys.readouterr().err
