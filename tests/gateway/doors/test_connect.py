"""The Connect protocol's unary calls, as bytes on the wire."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any
from urllib.parse import quote

import pytest
from tests.gateway.entries import Why

from weft.echo.v1 import echo_pb2


def zipped(data: bytes, level: int = 9) -> bytes:
    """As gzip, and the same in every process of pytest."""
    return gzip.compress(data, level, mtime=0)


SERVICE = "/weft.echo.v1.EchoService"
SAY = f"{SERVICE}/Say"
MIRROR = "/tests.mirror.v1.MirrorService/Reflect"
JSON = {"content-type": "application/json"}
PROTO = {"content-type": "application/proto"}
LARGE = 3_000


def said(answer: Any) -> str:
    if answer.headers["content-type"] == "application/proto":
        return echo_pb2.SayResponse.FromString(answer.body).text
    return json.loads(answer.body)["text"]


def code(answer: Any) -> str:
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.body)["code"]


def reason(answer: Any) -> str:
    details = json.loads(answer.body)["details"]
    return next(each["debug"]["reason"] for each in details if each["type"].endswith("ErrorInfo"))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"text": "hi"}'),
        ("application/json; charset=utf-8", b'{"text": "hi"}'),
        ("Application/JSON", b'{"text": "hi"}'),
        ("application/proto", echo_pb2.SayRequest(text="hi").SerializeToString()),
    ],
)
async def test_an_answer_has_the_codec_of_the_request(wire, content_type, body):
    answer = await wire.ask(
        "POST", SAY, {"content-type": content_type, "connect-protocol-version": "1"}, body
    )
    assert answer.status == 200
    assert answer.headers["content-type"] == content_type.split(";")[0].lower()
    assert said(answer) == "hi"


async def test_an_empty_binary_message_is_a_message(wire):
    answer = await wire.ask("POST", SAY, PROTO)
    assert answer.status == 200
    assert said(answer) == ""


async def test_binary_messages_reach_the_agent_as_they_are(wire):
    answer = await wire.ask("POST", SAY, PROTO, b"\x0a\xff\xff\xff\xff\x0f")
    assert answer.status == 400
    assert code(answer) == "invalid_argument"  # the agent's own word: the gateway reads no message


@pytest.mark.parametrize(
    ("number", "name", "status"),
    [
        *((1, "canceled", 499), (2, "unknown", 500), (3, "invalid_argument", 400)),
        *((4, "deadline_exceeded", 504), (5, "not_found", 404), (6, "already_exists", 409)),
        *((7, "permission_denied", 403), (8, "resource_exhausted", 429)),
        *((9, "failed_precondition", 400), (10, "aborted", 409), (11, "out_of_range", 400)),
        *((12, "unimplemented", 501), (13, "internal", 500), (14, "unavailable", 503)),
        *((15, "data_loss", 500), (16, "unauthenticated", 401)),
    ],
)
async def test_an_error_is_json_for_every_codec(wire, number, name, status):
    body = echo_pb2.SayRequest(fail_with=number).SerializeToString()
    answer = await wire.ask("POST", SAY, PROTO, body)
    assert (answer.status, code(answer)) == (status, name)


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "name"),
    [
        (SAY, JSON | {"connect-protocol-version": "2"}, b"{}", 400, "invalid_argument"),
        (SAY, JSON | {"connect-timeout-ms": "12345678901"}, b"{}", 400, "invalid_argument"),
        (SAY, JSON | {"connect-timeout-ms": "50"}, b'{"delay":"9s"}', 504, "deadline_exceeded"),
        (SAY, JSON | {"content-encoding": "br"}, b"{}", 501, "unimplemented"),
        (SAY, JSON | {"content-encoding": "gzip"}, b"{}", 400, "invalid_argument"),
        (SAY, JSON | {"x-a-bin": "%%"}, b"{}", 400, "invalid_argument"),
        (SAY, JSON | {"x-a": "y" * 9_000}, b"{}", 431, "invalid_argument"),
        (f"{SAY}?a=b", JSON, b"{}", 400, "invalid_argument"),
        (SAY, {"content-type": "text/plain"}, b"{}", 415, "invalid_argument"),
        (SAY, {"content-type": "application/thrift"}, b"{}", 415, "invalid_argument"),
        pytest.param(
            *(SAY, {"content-type": "application/grpc"}, b"", 415, "invalid_argument"),
            marks=pytest.mark.gateway_only(Why.GRPC_BY_HTTP1),
        ),
        (SAY, {"content-type": "application/connect+proto"}, b"", 415, "invalid_argument"),
        (f"{SERVICE}/Repeat", PROTO, b"", 415, "invalid_argument"),
        (f"{SERVICE}/Gather", JSON, b"{}", 501, "unimplemented"),
    ],
)
async def test_what_is_refused(wire, path, headers, body, status, name):
    answer = await wire.ask("POST", path, headers, body)
    assert (answer.status, code(answer)) == (status, name)


async def test_an_unknown_encoding_is_told_which_are_known(wire):
    answer = await wire.ask("POST", SAY, JSON | {"content-encoding": "br"}, b"{}")
    assert answer.headers["accept-encoding"] == "gzip, identity"
    assert "gzip" in json.loads(answer.body)["message"]


# Compression


@pytest.mark.parametrize(
    ("headers", "packed"),
    [
        ({"accept-encoding": "gzip"}, True),
        ({"accept-encoding": "br, gzip;q=0.5"}, True),
        ({"accept-encoding": "identity, gzip"}, False),
        ({"accept-encoding": "gzip;q=0"}, False),
        ({"accept-encoding": "br"}, False),
        ({}, False),
        ({"content-encoding": "gzip"}, True),
        ({"content-encoding": "gzip", "accept-encoding": "identity"}, False),
    ],
)
async def test_compression_both_ways(wire, headers, packed):
    body = echo_pb2.SayRequest(text="x" * LARGE).SerializeToString()
    if "content-encoding" in headers:
        body = zipped(body)
    answer = await wire.ask("POST", SAY, PROTO | headers, body)
    assert answer.headers.get("content-encoding", "") == ("gzip" if packed else "")
    assert "accept-encoding" in answer.headers["vary"]
    text = gzip.decompress(answer.body) if packed else answer.body
    assert len(echo_pb2.SayResponse.FromString(text).text) == LARGE


async def test_small_answers_and_empty_bodies_are_not_compressed(wire):
    answer = await wire.ask("POST", SAY, JSON | {"accept-encoding": "gzip"}, b'{"text":"hi"}')
    assert "content-encoding" not in answer.headers
    empty = await wire.ask("POST", SAY, JSON | {"content-encoding": "gzip"})
    assert empty.status == 200


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (zipped(b"\0" * (4 * 1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE"),
        (zipped(b"\0" * 100_000_000, 1), 413, "PAYLOAD_TOO_LARGE"),
        (zipped(b"{}")[:-4], 400, "BAD_COMPRESSION"),
        (zipped(b"{}") + b"more", 400, "BAD_COMPRESSION"),
        (zipped(b"{}") * 2, 400, "BAD_COMPRESSION"),
        (zipped(b"{}")[:-8] + b"\0" * 8, 400, "BAD_COMPRESSION"),
        (b"\x1f\x8b", 400, "BAD_COMPRESSION"),
    ],
    ids=["too-large", "bomb", "cut", "more", "twice", "wrong-sum", "head-only"],
)
async def test_bodies_that_do_not_unpack(wire, body, status, why):
    answer = await wire.ask("POST", SAY, JSON | {"content-encoding": "gzip"}, body)
    assert (answer.status, reason(answer)) == (status, why)


# GET

HI_JSON = b'{"text":"hi"}'
HI = echo_pb2.SayRequest(text="hi").SerializeToString()


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


@pytest.mark.parametrize(
    "query",
    [
        f"encoding=json&message={quote(json.dumps({'text': 'hi'}))}",
        "message=%7B%22text%22%3A+%22hi%22%7D&encoding=json&connect=v1",
        f"connect=v1&base64=1&encoding=proto&message={b64(HI).rstrip('=')}",
        f"base64=1&encoding=proto&message={quote(b64(HI))}&unknown=1&unknown=2",
        f"base64=1&compression=gzip&encoding=proto&message={quote(b64(zipped(HI)))}",
        f"base64=1&compression=identity&encoding=json&message={quote(b64(HI_JSON))}",
        "base64=0&encoding=json&message=%7B%22text%22%3A%22hi%22%7D",
    ],
)
async def test_get(wire, query):
    answer = await wire.ask("GET", f"{SAY}?{query}")
    assert answer.status == 200, answer.body
    assert said(answer) == "hi"


async def test_get_of_an_empty_message_and_head(wire):
    path = f"{SAY}?encoding=proto&message=&compression=gzip"
    assert (await wire.ask("GET", path)).status == 200
    head = await wire.ask("HEAD", path)
    assert (head.status, head.headers["content-type"]) == (200, "application/proto")


@pytest.mark.parametrize(
    ("query", "status", "name"),
    [
        ("encoding=json", 400, "invalid_argument"),
        ("message=%7B%7D", 400, "invalid_argument"),
        ("encoding=json&message=%7B%7D&message=%7B%7D", 400, "invalid_argument"),
        ("encoding=json&message=%7B%7D&connect=v2", 400, "invalid_argument"),
        ("encoding=thrift&message=%7B%7D", 415, "invalid_argument"),
        ("encoding=json&message=%7B%7D&compression=br", 501, "unimplemented"),
        ("encoding=json&message=%7B%7D&compression=gzip", 400, "invalid_argument"),
        ("encoding=json&base64=1&message=%25", 400, "invalid_argument"),
        ("encoding=json&base64=1&message=a", 400, "invalid_argument"),
        ("encoding=json&base64=1&message=e%2B30", 400, "invalid_argument"),
        ("encoding=json&message=%7B%22txet%22%3A1%7D", 400, "invalid_argument"),
        ("", 400, "invalid_argument"),
    ],
)
async def test_get_that_is_refused(wire, query, status, name):
    answer = await wire.ask("GET", f"{SAY}?{query}")
    assert (answer.status, code(answer)) == (status, name)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", f"{SERVICE}/SayOnce?encoding=json&message=%7B%7D", "OPTIONS, POST"),
        ("GET", f"{SERVICE}/Repeat?encoding=json&message=%7B%7D", "OPTIONS, POST"),
        ("PUT", SAY, "GET, HEAD, OPTIONS, POST"),
        ("DELETE", f"{SERVICE}/Gather", "OPTIONS, POST"),
    ],
)
async def test_http_methods_that_are_not_served(wire, method, path, allow):
    answer = await wire.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    options = await wire.ask("OPTIONS", path)
    assert (options.status, options.headers["allow"]) == (204, allow)


# Metadata


async def test_metadata_goes_in_and_comes_out(wire, mirror):
    sent = {
        "x-text": "a",
        "x-both": "1",
        "x-raw-bin": "AP8",
        "x-padded-bin": "AP8=",
        "x-joined-bin": "AP8=, /g",
        "tracestate": "v=1",
        "cookie": "secret=1",
        "weft-identity-bin": "CgRyb290",
        "x-forwarded-for": "10.0.0.1",
        "grpc-secret": "x",
        "x-not-ascii": "é",
    }
    answer = await wire.ask("POST", MIRROR, PROTO | sent)
    assert answer.status == 200
    reached = {
        entry.key_name: entry.value
        for entry in mirror.messages.ReflectResponse.FromString(answer.body).entries
    }
    of_envoy = {"x-envoy-external-address", "x-request-id"}
    assert {k: v for k, v in reached.items() if k.startswith("x-") and k not in of_envoy} == {
        "x-text": "a",
        "x-both": "1",
        "x-raw-bin": "00ff",
        "x-padded-bin": "00ff",
        "x-joined-bin": "fe",  # the last of two
    }
    assert reached.keys() & {"cookie", "authorization", "grpc-secret"} == set()
    assert reached["weft-identity-bin"] != b"\x0a\x04root".hex()
    assert answer.headers["mirror-leading"] == "a"
    assert answer.headers["mirror-leading-bin"] == "AP8"
    assert answer.headers["trailer-mirror-trailing"] == "b"
    assert answer.headers["trailer-mirror-trailing-bin"] == "/g"
    assert not [name for name in answer.headers if "cookie" in name or "secret" in name]


async def test_an_error_brings_its_metadata(wire, mirror):
    answer = await wire.ask("POST", MIRROR, JSON, b'{"fail":true}')
    assert (answer.status, code(answer)) == (404, "not_found")
    assert json.loads(answer.body)["message"] == "nobody is in the mirror: 100 % élan"
    assert answer.headers["mirror-leading"] == "a"
    assert "c" in answer.headers["trailer-mirror-trailing"]
    assert "trailer-grpc-status-details-bin" not in answer.headers
