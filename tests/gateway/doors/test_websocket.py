"""The WebSocket door, by a client of its own library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from datetime import timedelta
from typing import Any

import pytest
from tests.gateway.conftest import routed, running
from tests.gateway.entries import Why
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from weft.echo.v1 import echo_pb2
from weft.gateway.http.cors import Cors
from weft.rpc.testing import wait_until

ECHO = "weft.echo.v1.EchoService"
START, END = '{"@start": {}}', '{"@end": {}}'
BIG = "x" * 100_000


def dial(url: str, method: str, service: str = ECHO, **further: Any) -> connect:
    return connect(f"{url.replace('http://', 'ws://')}/ws/{service}/{method}", **further)


async def rest(socket: ClientConnection) -> list[Any]:
    """Everything that still comes; an error comes before the close."""
    found = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            found.append(await socket.recv())
    return [json.loads(each) if isinstance(each, str) else each for each in found]


def ended(socket: ClientConnection) -> int:
    assert socket.close_code is not None
    return socket.close_code


async def test_both_ways_at_once(entry) -> None:
    async with dial(entry.url, "Talk") as socket:
        for text in ("a", "b", "c"):
            await socket.send(json.dumps({"text": text}))
            assert json.loads(await socket.recv()) == {"text": text}
        await socket.send(END)
        assert await rest(socket) == []
        assert (ended(socket), socket.close_reason) == (1000, "")


async def test_a_stream_of_requests(entry) -> None:
    async with dial(entry.url, "Gather") as socket:
        await socket.send(START)
        for text in ("a", "b"):
            await socket.send(json.dumps({"text": text}))
        await socket.send(END)
        assert await rest(socket) == [{"texts": ["a", "b"]}]
        assert ended(socket) == 1000


async def test_no_request_at_all(entry) -> None:
    async with dial(entry.url, "Gather") as socket:
        await socket.send(END)
        assert await rest(socket) == [{}]


async def test_a_stream_of_answers_and_one_answer(entry) -> None:
    async with dial(entry.url, "Repeat") as socket:
        await socket.send('{"text": "x", "count": 2}')
        assert await rest(socket) == [{"text": "x"}, {"text": "x", "number": 1}]
        assert ended(socket) == 1000
    async with dial(entry.url, "Say") as socket:
        await socket.send('{"text": "x"}')
        (said,) = await rest(socket)
        assert said["text"] == "x"
        assert ended(socket) == 1000


async def test_binary_messages(entry) -> None:
    message = echo_pb2.TalkRequest(text="a").SerializeToString()
    for further in ({}, {"subprotocols": ["weft.v1.proto"]}):
        async with dial(entry.url, "Talk", **further) as socket:
            await socket.send(message)
            assert echo_pb2.TalkResponse.FromString(await socket.recv()).text == "a"
            await socket.send(b"")
            assert await socket.recv() == b""
            await socket.send(END)
            assert await rest(socket) == []


async def test_the_subprotocol_is_chosen_by_the_callers_order(entry) -> None:
    offered = ["other", "weft.v1.json", "weft.v1.proto"]
    async with dial(entry.url, "Talk", subprotocols=offered) as socket:
        assert socket.subprotocol == "weft.v1.json"
    async with dial(entry.url, "Talk", subprotocols=["other"]) as socket:
        assert socket.subprotocol is None


@pytest.mark.parametrize("status", range(1, 17))
async def test_every_status_has_its_close_code(entry, status: int) -> None:
    async with dial(entry.url, "Say") as socket:
        await socket.send(json.dumps({"failWith": status}))
        (said,) = await rest(socket)
        assert ended(socket) == 4000 + status
        assert socket.close_reason is not None
        assert said["@error"]["details"][0]["reason"] == socket.close_reason.partition(":")[0]


async def test_an_error_after_messages(entry) -> None:
    async with dial(entry.url, "Repeat") as socket:
        await socket.send('{"count": 1, "failWith": 5}')
        answer, said = await rest(socket)
        assert answer == {}
        assert (said["@error"]["status"], ended(socket)) == ("NOT_FOUND", 4005)


@pytest.mark.parametrize(
    ("method", "frames"),
    [
        ("Talk", ["{"]),
        ("Talk", ['{"nothing": 1}']),
        ("Talk", ['{"text": "a"}', b"\x0a\x01a"]),
        ("Talk", [b"\x0a\x01a", '{"text": "a"}']),
        ("Talk", ['{"text": "a"}', START]),
        ("Talk", ['{"@start": {"heads": {}}}']),
        ("Talk", ['{"@start": {"encoding": "xml"}}']),
        ("Talk", ['{"@start": {"headers": {"origin": "https://a.example"}}}']),
        ("Talk", ['{"@start": {"headers": {"a": 1}}}']),
        ("Talk", ['{"@start": {"headers": {"a\\n": "b"}}}']),
        ("Talk", ['{"@start": {"headers": []}}']),
        ("Talk", ['{"@start": {}, "text": "a"}']),
        ("Talk", ['{"@end": {"really": true}}']),
        ("Talk", ['{"@end": {}']),
        ("Say", [END]),
        ("Say", ["[]"]),
        ("Say", ['{"delay": "5s"}', "{}"]),
        ("Gather", [END, '{"text": "late"}'] * 1),
    ],
)
async def test_what_does_not_fit_ends_the_call(mesh, entry, method: str, frames: list[Any]) -> None:
    async with dial(entry.url, method) as socket:
        for frame in frames:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(frame)
        said = (await rest(socket))[-1]
        if method == "Gather":  # the answer may be quicker than the watch
            assert ended(socket) in {1000, 4003}
        else:
            assert (said["@error"]["status"], ended(socket)) == ("INVALID_ARGUMENT", 4003)
    await wait_until(lambda: mesh.in_flight == 0)


async def test_no_agent_serves_it(entry) -> None:
    async with dial(entry.url, "Nothing") as socket:
        await socket.send(START)
        (said,) = await rest(socket)
        assert (said["@error"]["status"], ended(socket)) == ("NOT_FOUND", 4005)


@pytest.mark.gateway_only(Why.UPGRADES)
async def test_plain_http_is_told_to_upgrade(entry) -> None:
    answer = await entry.http.get(f"/ws/{ECHO}/Talk")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.json()["error"]["details"][0]["reason"] == "UPGRADE_REQUIRED"


@pytest.mark.gateway_only(Why.UPGRADES)
async def test_elsewhere_an_upgrade_is_no_matter(entry, wire) -> None:
    upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
    answer = await wire.ask("GET", "/v1/echo/hello", upgrade)
    assert (answer.status, json.loads(answer.body)["text"]) == (200, "hello")


async def test_a_handshake_that_is_none(entry, wire) -> None:
    upgrade = {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "12"}
    answer = await wire.ask("GET", f"/ws/{ECHO}/Talk", upgrade)
    assert answer.status in {400, 426}


async def test_deadlines(entry) -> None:
    headers = {"x-request-timeout": "0.2s"}
    start = json.dumps({"@start": {"headers": headers}})
    for further, first in (({"additional_headers": headers}, START), ({}, start)):
        async with dial(entry.url, "Talk", **further) as socket:
            await socket.send(first)
            assert (await rest(socket))[0]["@error"]["status"] == "DEADLINE_EXCEEDED"
            assert ended(socket) == 4004


async def test_who_calls(own_with_keys) -> None:
    mesh, good, bad = own_with_keys
    start = json.dumps({"@start": {"headers": {"Authorization": f"Bearer {good.text}"}}})
    ways: list[tuple[dict[str, Any], str]] = [
        ({"additional_headers": {"x-api-key": good.text}}, START),
        ({"subprotocols": ["weft.v1.json", f"weft.bearer.{good.text}"]}, START),
        ({}, start),
    ]
    for further, first in ways:
        async with dial(mesh.gateway.url, "Say", **further) as socket:
            await socket.send(first)
            await socket.send('{"text": "x"}')
            (said,) = await rest(socket)
            assert said["caller"]
            assert good.text not in str(socket.response.headers)
    for further in ({}, {"additional_headers": {"x-api-key": bad.text}}):
        async with dial(mesh.gateway.url, "Talk", **further) as socket:
            await socket.send(START)
            assert (await rest(socket))[0]["@error"]["status"] == "UNAUTHENTICATED"
            assert ended(socket) == 4016
    # Not in the query, where it would be logged on the way.
    async with dial(
        mesh.gateway.url, f"Talk?access_token={good.text}&x-api-key={good.text}"
    ) as socket:
        await socket.send(START)
        await rest(socket)
        assert ended(socket) == 4016


async def test_scopes(entry, mirror) -> None:
    async with dial(entry.url, "Reflect", "tests.mirror.v1.MirrorService") as socket:
        headers = {"my-word": "b", "weft-identity-bin": "AAAA", "idempotency-key": "k"}
        await socket.send(json.dumps({"@start": {"headers": headers}}))
        await socket.send('{"text": "x"}')
        (said,) = await rest(socket)
        entries = [(entry["keyName"], entry.get("value", "")) for entry in said["entries"]]
        assert ("my-word", "b") in entries
        assert "idempotency-key" not in dict(entries)
        assert dict(entries).get("weft-identity-bin") != "000000"


async def test_a_stream_takes_no_idempotency_key(entry) -> None:
    async with dial(entry.url, "Talk", additional_headers={"idempotency-key": "k"}) as socket:
        await socket.send(START)
        assert (await rest(socket))[0]["@error"]["status"] == "INVALID_ARGUMENT"


async def test_origins(fresh_xds, database_url) -> None:
    listed = "https://app.example.com"
    async with running(database_url, cors=Cors([listed])) as mesh:
        await routed(mesh.http)
        for origin in (listed, listed.upper(), mesh.gateway.url):
            async with dial(mesh.gateway.url, "Talk", origin=origin) as socket:
                await socket.send('{"text": "a"}')
                assert json.loads(await socket.recv()) == {"text": "a"}
        for origin in ("https://other.example", "null", "http://127.0.0.1"):
            with pytest.raises(InvalidStatus) as refused:
                async with dial(mesh.gateway.url, "Talk", origin=origin):
                    pass
            response = refused.value.response
            assert response.status_code == 403
            assert b"ORIGIN_NOT_ALLOWED" in response.body


async def test_a_caller_that_leaves_cancels_the_call(mesh, entry) -> None:
    for method, message in (("Talk", START), ("Repeat", '{"count": 9, "pause": "5s"}')):
        async with dial(entry.url, method) as socket:
            await socket.send(message)
            await wait_until(lambda: mesh.in_flight == 1)
        await wait_until(lambda: mesh.in_flight == 0)
    async with dial(entry.url, "Say") as socket:
        await socket.send('{"delay": "9s"}')
        await wait_until(lambda: mesh.in_flight == 1)
        socket.transport.abort()
    await wait_until(lambda: mesh.in_flight == 0)


async def test_messages_that_are_too_large(fresh_xds, database_url) -> None:
    async with running(database_url, max_body=10_000) as mesh:
        await routed(mesh.http)
        async with dial(mesh.gateway.url, "Talk") as socket:
            await socket.send(json.dumps({"text": "a" * 9_000}))
            await socket.recv()
            await socket.send(json.dumps({"text": "a" * 11_000}))
            await rest(socket)
            assert ended(socket) == 1009
        await wait_until(lambda: mesh.in_flight == 0)


async def test_pings_are_answered(entry) -> None:
    async with dial(entry.url, "Talk") as socket:
        await (await socket.ping())


async def test_what_nobody_reads_waits_and_nothing_is_lost(entry) -> None:
    """More than all buffers on the way hold goes into a call whose answers are not read."""
    count, sent = 600, 0
    message = json.dumps({"text": BIG})
    async with dial(entry.url, "Talk", max_size=None) as socket:

        async def send() -> None:
            nonlocal sent
            for _ in range(count):
                await socket.send(message)
                sent += 1
            await socket.send(END)

        sending = asyncio.create_task(send())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.5)
        assert 0 < sent < count
        assert len(await rest(socket)) == count
        await sending
        assert ended(socket) == 1000


async def test_stopping_lets_calls_finish_and_cuts_those_that_do_not(
    fresh_xds, database_url, monkeypatch
) -> None:
    monkeypatch.setattr("weft.gateway.gateway._DRAIN", timedelta(seconds=1))
    async with running(database_url) as mesh:
        await routed(mesh.http)
        async with (
            dial(mesh.gateway.url, "Repeat") as short,
            dial(mesh.gateway.url, "Talk") as long,
        ):
            await short.send('{"count": 5, "pause": "0.1s"}')
            await long.send('{"text": "a"}')
            await short.recv()
            await long.recv()
            stopping = asyncio.create_task(mesh.gateway.stop())
            assert len(await rest(short)) == 4
            assert ended(short) == 1000
            (said,) = await rest(long)
            assert said["@error"]["details"][0]["reason"] == "GATEWAY_STOPPING"
            assert ended(long) == 4014
            await stopping
        with pytest.raises(ConnectionRefusedError):
            async with dial(mesh.gateway.url, "Talk"):
                pass
