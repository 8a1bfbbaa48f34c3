"""Streams of the Connect protocol, as bytes on the wire."""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import pytest

from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until


def zipped(data: bytes, level: int = 9) -> bytes:
    """As gzip, and the same in every process of pytest."""
    return gzip.compress(data, level, mtime=0)


REPEAT = "/weft.echo.v1.EchoService/Repeat"
TWICE = "/tests.mirror.v1.MirrorService/ReflectTwice"
JSON = {"content-type": "application/connect+json"}
PROTO = {"content-type": "application/connect+proto"}
THREE = {"text": "x", "count": 3}


def frame(data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


def asking(**request: Any) -> bytes:
    return frame(json.dumps(request).encode())


def frames(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        flags, length = struct.unpack_from(">BI", body)
        assert len(body) >= 5 + length
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def end_of(answer: Any) -> dict[str, Any]:
    """What the last frame says; no frame before it says it is the last."""
    assert answer.status == 200
    assert answer.whole
    assert answer.headers["content-type"].startswith("application/connect+")
    *messages, (flags, last) = frames(answer.body)
    assert flags == 2
    assert not any(each & 2 for each, _ in messages)
    return json.loads(last)


async def test_json(wire):
    answer = await wire.ask("POST", REPEAT, JSON, asking(**THREE))
    assert answer.headers["content-type"] == "application/connect+json"
    assert end_of(answer) == {}
    messages = [json.loads(data) for _, data in frames(answer.body)[:-1]]
    assert messages == [{"text": "x"}, {"text": "x", "number": 1}, {"text": "x", "number": 2}]


async def test_binary_and_compressed(wire):
    request = echo_pb2.RepeatRequest(text="x" * 3_000, count=2).SerializeToString()
    headers = {
        **PROTO,
        "connect-protocol-version": "1",
        "connect-content-encoding": "gzip",
        "connect-accept-encoding": "gzip",
    }
    answer = await wire.ask("POST", REPEAT, headers, frame(zipped(request), 1))
    assert answer.headers["connect-content-encoding"] == "gzip"
    assert end_of(answer) == {}
    *messages, _ = frames(answer.body)
    assert [flags for flags, _ in messages] == [1, 1]
    replies = [echo_pb2.RepeatResponse.FromString(gzip.decompress(data)) for _, data in messages]
    assert [len(reply.text) for reply in replies] == [3_000, 3_000]


async def test_small_messages_stay_as_they_are(wire):
    headers = JSON | {"connect-accept-encoding": "gzip"}
    answer = await wire.ask("POST", REPEAT, headers, asking(**THREE))
    assert [flags for flags, _ in frames(answer.body)] == [0, 0, 0, 2]


@pytest.mark.parametrize("count", [0, 2])
async def test_an_error_is_in_the_last_frame(wire, count):
    answer = await wire.ask(
        "POST",
        REPEAT,
        PROTO,
        frame(echo_pb2.RepeatRequest(text="x", count=count, fail_with=5).SerializeToString()),
    )
    error = end_of(answer)["error"]
    assert error["code"] == "not_found"
    assert error["details"][0]["type"] == "google.rpc.ErrorInfo"
    assert len(frames(answer.body)) == count + 1


async def test_a_deadline_ends_the_stream(wire):
    headers = JSON | {"connect-timeout-ms": "300"}
    answer = await wire.ask("POST", REPEAT, headers, asking(count=1_000, pause="0.1s"))
    assert end_of(answer)["error"]["code"] == "deadline_exceeded"
    assert 1 <= len(frames(answer.body)) - 1 <= 3


async def test_trailing_metadata(wire, mirror):
    answer = await wire.ask("POST", TWICE, JSON, asking())
    assert end_of(answer) == {"metadata": {"mirror-trailing": ["b", "bb"]}}
    failed = end_of(await wire.ask("POST", TWICE, JSON, asking(fail=True)))
    assert failed["error"]["code"] == "not_found"
    assert failed["metadata"]["mirror-trailing"] == ["b", "bb"]


GZIP = {"connect-content-encoding": "gzip"}


@pytest.mark.parametrize(
    ("headers", "body", "code", "reason"),
    [
        ({}, b"", "unimplemented", "NOT_ONE_MESSAGE"),
        ({}, b"\0\0\0", "invalid_argument", "BAD_FRAME"),
        ({}, b"\0\0\0\0\x05{}", "invalid_argument", "BAD_FRAME"),
        ({}, b"\0\xff\xff\xff\xff{}", "invalid_argument", "BAD_FRAME"),
        ({}, frame(b"{}") * 2, "unimplemented", "NOT_ONE_MESSAGE"),
        ({}, frame(b"{}", 2), "invalid_argument", "BAD_FRAME"),
        ({}, frame(b"{}", 0x80), "invalid_argument", "BAD_FRAME"),
        ({}, frame(zipped(b"{}"), 1), "invalid_argument", "BAD_FRAME"),
        (GZIP, frame(b"{}", 1), "invalid_argument", "BAD_COMPRESSION"),
        (GZIP, frame(zipped(b"{}")[:-3], 1), "invalid_argument", "BAD_COMPRESSION"),
        (GZIP, frame(zipped(b" " * 5_000_000), 1), "invalid_argument", "PAYLOAD_TOO_LARGE"),
        ({"connect-content-encoding": "br"}, frame(b"{}", 1), "unimplemented", "ENCODING_UNKNOWN"),
        ({}, frame(b"{"), "invalid_argument", "INVALID_ARGUMENT"),
        (
            {"connect-protocol-version": "2"},
            asking(),
            "invalid_argument",
            "CONNECT_VERSION_UNKNOWN",
        ),
        ({"connect-timeout-ms": "x"}, asking(), "invalid_argument", "TIMEOUT_MALFORMED"),
    ],
)
async def test_what_is_refused(wire, headers, body, code, reason):
    error = end_of(await wire.ask("POST", REPEAT, JSON | headers, body))["error"]
    assert (error["code"], error["details"][0]["debug"]["reason"]) == (code, reason)


async def test_an_uncompressed_frame_needs_no_encoding_that_we_know(wire):
    answer = await wire.ask("POST", REPEAT, JSON | {"connect-content-encoding": "br"}, asking())
    assert end_of(answer) == {}


async def test_a_body_that_is_too_large_is_refused_unread(wire):
    async with wire.open() as connection:
        await connection.send("POST", REPEAT, PROTO, b"x", length=100_000_000)
        answer = await connection.answer()
    assert end_of(answer)["error"]["details"][0]["debug"]["reason"] == "PAYLOAD_TOO_LARGE"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("method", ["Gather", "Talk"])
async def test_streams_of_requests_are_refused_with_a_hint(wire, method):
    path = f"/weft.echo.v1.EchoService/{method}"
    error = end_of(await wire.ask("POST", path, PROTO, frame(b"") * 3))["error"]
    assert error["code"] == "unimplemented"
    assert "gRPC" in error["message"]


async def test_a_unary_method_is_no_stream(wire):
    answer = await wire.ask("POST", "/weft.echo.v1.EchoService/Say", JSON, asking())
    assert answer.status == 415


async def test_a_caller_that_hangs_up_cancels_the_stream(wire, mesh):
    async with wire.open() as connection:
        await connection.send("POST", REPEAT, JSON, asking(count=1_000, pause="0.05s"))
        await connection.head()
        await connection.chunk()
        assert mesh.in_flight == 1
    await wait_until(lambda: mesh.in_flight == 0)


async def test_messages_come_as_they_are_made(wire):
    async with wire.open() as connection:
        await connection.send("POST", REPEAT, JSON, asking(count=3, pause="0.2s"))
        await connection.head()
        [(_, first)] = frames(await connection.chunk())
        came = [first]
        while len(came) < 3:  # an edge may put into one what came late
            came += [data for _, data in frames(await connection.chunk())]
        assert [json.loads(data).get("number", 0) for data in came[:3]] == [0, 1, 2]
        end = came[3:] or [data for _, data in frames(await connection.chunk())]
        assert end == [b"{}"]
