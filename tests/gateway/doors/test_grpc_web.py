"""gRPC-Web, binary and text, as bytes on the wire."""

from __future__ import annotations

import base64
import gzip
import json
import struct
from typing import Any
from urllib.parse import unquote

import pytest
from google.rpc import error_details_pb2, status_pb2
from tests.gateway.entries import Why

from weft.echo.v1 import echo_pb2
from weft.rpc.testing import wait_until


def zipped(data: bytes, level: int = 9) -> bytes:
    """As gzip, and the same in every process of pytest."""
    return gzip.compress(data, level, mtime=0)


SAY = "/weft.echo.v1.EchoService/Say"
REPEAT = "/weft.echo.v1.EchoService/Repeat"
REFLECT = "/tests.mirror.v1.MirrorService/Reflect"
BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
WEB = {"x-grpc-web": "1", "x-user-agent": "grpc-web-javascript/0.1"}
HI = echo_pb2.SayRequest(text="hi")


def frame(data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


def text_of(body: bytes) -> bytes:
    """Base64 that may be padded between."""
    at, found = 0, b""
    while at < len(body):
        found += base64.b64decode(body[at : at + 4], validate=True)
        at += 4
    return found


def read(answer: Any) -> tuple[list[tuple[int, bytes]], dict[str, str]]:
    """Messages with their flags, and the trailers, which are last and once; or are headers, where nothing else is said."""
    assert answer.status == 200
    assert answer.whole
    if answer.body == b"":
        return [], {name: value for name, value in answer.headers.items() if name[:5] == "grpc-"}
    kind = answer.headers["content-type"]
    body = text_of(answer.body) if kind.startswith("application/grpc-web-text") else answer.body
    messages = []
    while True:
        flags, length = struct.unpack_from(">BI", body)
        data, body = body[5 : 5 + length], body[5 + length :]
        if flags & 0x80:
            break
        messages.append((flags, data))
    assert body == b""
    lines = data.decode().split("\r\n")
    assert lines.pop() == ""
    trailers = {name: value.strip() for name, _, value in (each.partition(":") for each in lines)}
    if trailers.get("grpc-message") == "":
        del trailers["grpc-message"]
    return messages, trailers


async def ask(wire: Any, path: str, message: Any, kind: str = BINARY, **headers: str) -> Any:
    body = frame(message.SerializeToString())
    if "text" in kind:
        body = base64.b64encode(body)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await wire.ask("POST", path, {"content-type": kind, **WEB, **given}, body)


@pytest.mark.parametrize(
    ("kind", "accept", "answered"),
    [
        (BINARY, "*/*", BINARY),
        pytest.param(
            *("application/grpc-web", "", "application/grpc-web"),
            marks=pytest.mark.gateway_only(Why.WEB_TYPE),
        ),
        (TEXT, "application/grpc-web-text", TEXT),
        pytest.param(
            *("application/grpc-web-text", "*/*", "application/grpc-web-text"),
            marks=pytest.mark.gateway_only(Why.WEB_TYPE),
        ),
        (BINARY, "application/grpc-web-text", TEXT),
        (TEXT, "application/grpc-web+proto", BINARY),
        ("application/grpc-web+proto;charset=utf-8", "*/*", BINARY),
    ],
)
async def test_unary(wire, kind, accept, answered):
    answer = await ask(wire, SAY, HI, kind, accept=accept)
    assert answer.headers["content-type"] == answered
    [(flags, data)], trailers = read(answer)
    assert flags == 0
    assert echo_pb2.SayResponse.FromString(data).text == "hi"
    assert trailers == {"grpc-status": "0"}


@pytest.mark.parametrize("kind", ["application/grpc-web+json", "application/grpc-web-text+json"])
async def test_json(wire, kind):
    body = frame(b'{"text":"hi"}')
    body = base64.b64encode(body) if "text" in kind.split("+", maxsplit=1)[0] else body
    messages, trailers = read(await wire.ask("POST", SAY, {"content-type": kind}, body))
    assert json.loads(messages[0][1])["text"] == "hi"
    assert trailers == {"grpc-status": "0"}


@pytest.mark.parametrize("kind", [BINARY, TEXT])
async def test_server_streaming(wire, kind):
    request = echo_pb2.RepeatRequest(text="x", count=5)
    messages, trailers = read(await ask(wire, REPEAT, request, kind))
    numbers = [echo_pb2.RepeatResponse.FromString(data).number for _, data in messages]
    assert numbers == [0, 1, 2, 3, 4]
    assert trailers == {"grpc-status": "0"}


@pytest.mark.parametrize("code", range(1, 17))
async def test_errors(wire, code):
    messages, trailers = read(await ask(wire, SAY, echo_pb2.SayRequest(fail_with=code)))
    assert messages == []
    assert trailers["grpc-status"] == str(code)
    details = trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    assert (status.code, status.message) == (code, unquote(trailers["grpc-message"]))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "weft.dev"


@pytest.mark.parametrize("kind", [BINARY, TEXT])
async def test_an_error_after_messages(wire, kind):
    request = echo_pb2.RepeatRequest(text="x", count=2, fail_with=9)
    messages, trailers = read(await ask(wire, REPEAT, request, kind))
    assert len(messages) == 2
    assert trailers["grpc-status"] == "9"


async def test_metadata_and_a_message_that_is_not_ascii(wire, mirror):
    request = mirror.messages.ReflectRequest(text="a")
    answer = await ask(wire, REFLECT, request, x_text="1", x_raw_bin="AP8")
    [(_, data)], trailers = read(answer)
    entries = mirror.messages.ReflectResponse.FromString(data).entries
    of_envoy = {"x-envoy-external-address", "x-request-id"}
    assert {
        e.key_name: e.value
        for e in entries
        if e.key_name.startswith("x-") and e.key_name not in of_envoy
    } == {
        "x-text": "1",
        "x-raw-bin": "00ff",
    }
    assert (answer.headers["mirror-leading"], trailers["mirror-trailing"]) == ("a", "b")
    assert "set-cookie" not in answer.headers
    failed = await ask(wire, REFLECT, mirror.messages.ReflectRequest(fail=True))
    _, trailers = read(failed)
    assert trailers["grpc-message"] == "nobody is in the mirror: 100 %25 %C3%A9lan"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        # By chance the agent is first to say so.
        pytest.param("100m", "4", marks=pytest.mark.gateway_only(Why.WEB_REFUSALS, run=False)),
        ("0S", "4"),
        ("5", "3"),
        ("123456789m", "3"),
    ],
)
async def test_timeouts(wire, asked, status):
    request = echo_pb2.SayRequest(text="x", delay={"seconds": 9})
    _, trailers = read(await ask(wire, SAY, request, grpc_timeout=asked))
    assert trailers["grpc-status"] == status


@pytest.mark.gateway_only(Why.WEB_FRAMES)
async def test_compression(wire):
    request = echo_pb2.SayRequest(text="x" * 3_000).SerializeToString()
    headers = {"content-type": BINARY, "grpc-encoding": "gzip", "grpc-accept-encoding": "gzip"}
    packed = frame(zipped(request), 1)
    answer = await wire.ask("POST", SAY, headers, packed)
    [(flags, data)], trailers = read(answer)
    assert (flags, answer.headers["grpc-encoding"], trailers["grpc-status"]) == (1, "gzip", "0")
    assert len(echo_pb2.SayResponse.FromString(gzip.decompress(data)).text) == 3_000
    # As its document has it: the whole body by the browser's own means.
    whole = {"content-type": BINARY, "content-encoding": "gzip"}
    [(flags, data)], _ = read(await wire.ask("POST", SAY, whole, zipped(frame(request))))
    assert (flags, len(echo_pb2.SayResponse.FromString(data).text)) == (0, 3_000)


PACKED = {"grpc-encoding": "gzip"}


FRAMES = pytest.mark.gateway_only(Why.WEB_FRAMES)
HANGING = pytest.mark.gateway_only(Why.WEB_FRAMES, run=False)  # until the deadline of the contract


@pytest.mark.parametrize(
    ("kind", "headers", "body", "status"),
    [
        pytest.param(BINARY, {}, b"", "12", marks=HANGING),
        pytest.param(BINARY, {}, b"\0\0", "3", marks=HANGING),
        pytest.param(BINARY, {}, frame(b"abc")[:-1], "3", marks=HANGING),
        pytest.param(BINARY, {}, frame(b"") * 2, "12", marks=FRAMES),
        pytest.param(BINARY, {}, frame(b"", 0x80), "3", marks=FRAMES),
        pytest.param(BINARY, {}, frame(zipped(b""), 1), "3", marks=FRAMES),
        pytest.param(BINARY, PACKED, frame(b"abc", 1), "3", marks=FRAMES),
        pytest.param(BINARY, PACKED, frame(zipped(b"\0" * 50_000_000), 1), "3", marks=FRAMES),
        pytest.param(BINARY, {"grpc-encoding": "snappy"}, frame(b"abc", 1), "12", marks=FRAMES),
        (BINARY, {"content-encoding": "gzip"}, frame(b""), "3"),
        pytest.param(TEXT, {}, b"AAAA", "3", marks=HANGING),
        pytest.param(TEXT, {}, b"AAAA!AAA", "3", marks=FRAMES),
        pytest.param(TEXT, {}, b"AAAAA", "3", marks=FRAMES),
        pytest.param(TEXT, {}, b"A===", "3", marks=FRAMES),
        pytest.param(TEXT, {}, b"AA==" * 1_000, "3", marks=FRAMES),
        pytest.param(TEXT, {}, "AAAÄ".encode(), "3", marks=FRAMES),
        pytest.param(TEXT, {}, frame(b""), "3", marks=FRAMES),
        ("application/grpc-web+json", {}, frame(b"{"), "3"),
    ],
)
async def test_what_is_refused(wire, kind, headers, body, status):
    answer = await wire.ask("POST", SAY, {"content-type": kind, **headers}, body)
    messages, trailers = read(answer)
    assert (messages, trailers["grpc-status"]) == ([], status)


@pytest.mark.gateway_only(Why.WEB_REFUSALS)
async def test_text_may_be_padded_in_several_places(wire):
    sent = frame(HI.SerializeToString())
    body = base64.b64encode(sent[:4]) + base64.b64encode(sent[4:5]) + base64.b64encode(sent[5:])
    [(_, data)], _ = read(await wire.ask("POST", SAY, {"content-type": TEXT}, body))
    assert echo_pb2.SayResponse.FromString(data).text == "hi"


@pytest.mark.parametrize("path", [SAY, REPEAT])
async def test_a_codec_that_is_not_known(wire, path):
    kind = {"content-type": "application/grpc-web+thrift"}
    assert (await wire.ask("POST", path, kind, frame(b""))).status == 415


@pytest.mark.gateway_only(Why.WEB_FRAMES)
async def test_streams_of_requests_are_refused_with_a_hint(wire):
    path = "/weft.echo.v1.EchoService/Talk"
    _, trailers = read(await ask(wire, path, echo_pb2.TalkRequest()))
    assert trailers["grpc-status"] == "12"
    assert "gRPC" in unquote(trailers["grpc-message"])


@pytest.mark.parametrize("path", [SAY, REPEAT])
async def test_a_caller_that_hangs_up_cancels_the_call(wire, mesh, path):
    request = {
        SAY: echo_pb2.SayRequest(delay={"seconds": 30}),
        REPEAT: echo_pb2.RepeatRequest(count=100, pause={"nanos": 50_000_000}),
    }[path]
    async with wire.open() as connection:
        headers = {"content-type": BINARY, "grpc-timeout": "50S"}
        await connection.send("POST", path, headers, frame(request.SerializeToString()))
        await wait_until(lambda: mesh.in_flight == 1)
    await wait_until(lambda: mesh.in_flight == 0)
