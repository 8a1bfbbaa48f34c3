"""What a careless or hostile caller sends, by each door: a clear error, and the process lives."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import grpc
import httpx
import pytest
from httpx import AsyncClient
from tests.gateway.entries import Entry, Why

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

REST = "/v1/echo:say"
CONNECT = "/weft.echo.v1.EchoService/Say"
DOORS = [REST, CONNECT]
NO_FIELDS, LAXER, MEDIA_TYPES = (
    pytest.mark.gateway_only(why) for why in (Why.NO_FIELDS, Why.LAXER, Why.MEDIA_TYPES)
)


def violations(answer: httpx.Response) -> list[tuple[str, str]]:
    body = answer.json()
    details = body["error"]["details"] if "error" in body else [d["debug"] for d in body["details"]]
    return [(v["field"], v["description"]) for d in details for v in d.get("fieldViolations", [])]


async def alive(http: AsyncClient) -> None:
    assert (await http.post(REST, json={"text": "ok"})).json()["text"] == "ok"


BODIES = [
    (b'{"text": ', None),
    (b"[]", None),
    (b'"text"', None),
    (b'{"txet": "a"}', "txet"),
    (b'{"text": 5}', "text"),
    (b'{"delay": "soon"}', "delay"),
    (b'{"failWith": "x"}', "failWith"),
    (b'{"failWith": 99999999999}', "failWith"),
    (b'{"text": "\xff\xfe"}', None),
    (b'{"text": "\\ud800"}', None),
    (b"{" * 100_000, None),
    (b'{"a":' * 100_000, None),
    (b"[" * 100_000, None),
]


@pytest.mark.parametrize(
    ("door", "body", "field"),
    [
        *((CONNECT, *each) for each in BODIES),
        *(
            pytest.param(
                *(REST, body, field),
                marks=() if field is None else LAXER if field == "txet" else NO_FIELDS,
            )
            for body, field in BODIES
        ),
    ],
)
async def test_bodies_that_are_no_request(
    http: AsyncClient, door: str, body: bytes, field: str | None
) -> None:
    answer = await http.post(door, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    if field is not None:
        assert field in [name for name, _ in violations(answer)]
    await alive(http)


@pytest.mark.gateway_only(Why.HANGS_UP, run=False)  # by chance it is refused before
@pytest.mark.parametrize("door", DOORS)
async def test_a_hundred_megabytes_are_refused_unread(http: AsyncClient, door: str) -> None:
    answer = await http.post(door, content=b"x" * 100_000_000)
    assert answer.status_code == 413

    async def drops():
        for _ in range(100):
            yield b"x" * 1_000_000

    try:
        chunked = await http.post(door, content=drops())
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        chunked = None  # the gateway hung up on a sender that would not stop
    assert chunked is None or chunked.status_code == 413
    await alive(http)


TIMES = [
    ({"x-request-timeout": "0"}, 504),
    ({"connect-timeout-ms": "0"}, 504),
    ({"grpc-timeout": "0S"}, 504),
    ({"x-request-timeout": "soon"}, 400),
    ({"connect-timeout-ms": "-1"}, 400),
    ({"grpc-timeout": "5"}, 400),
]


@pytest.mark.parametrize(
    ("door", "header", "status"),
    [(door, *each) for each in TIMES for door in DOORS],
)
async def test_deadlines_of_nothing_and_of_nonsense(
    http: AsyncClient, door: str, header: dict[str, str], status: int
) -> None:
    answer = await http.post(door, json={"text": "a"}, headers=header)
    assert answer.status_code == status
    if status == 400:
        assert violations(answer)[0][0] == next(iter(header))


@pytest.mark.parametrize("door", [pytest.param(REST, marks=MEDIA_TYPES), CONNECT])
async def test_a_body_of_another_type_is_refused(http: AsyncClient, door: str) -> None:
    answer = await http.post(door, content=b"a=b", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "path",
    [
        "/v1/echo/%ff",
        pytest.param("/v1/echo/%zz", marks=LAXER),
        "/v1/echo/a?text=%ff",
        "/v1/echo/a?nope=1",
    ],
)
async def test_bad_targets(http: AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code in {400, 404}
    await alive(http)


async def test_a_header_bomb_is_refused(entry: Entry, http: AsyncClient) -> None:
    host, _, port = entry.url.removeprefix("http://").rpartition(":")
    for bomb in (b"".join(b"x-%d: y\r\n" % n for n in range(100_000)), b"x: " + b"y" * 10_000_000):
        reader, writer = await asyncio.open_connection(host, int(port))
        answer = b""
        try:
            writer.write(b"GET /v1/echo/a HTTP/1.1\r\nhost: x\r\n" + bomb + b"\r\n\r\n")
            await writer.drain()
            answer = await reader.read(200)
        except ConnectionError:
            pass
        writer.close()
        assert not answer or b" 431 " in answer
    await alive(http)


async def test_the_grpc_door(entry: Entry) -> None:
    async with grpc.aio.insecure_channel(entry.grpc_address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)

        async def code_of(call: grpc.aio.UnaryUnaryCall) -> grpc.StatusCode:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            return caught.value.code()

        raw = channel.unary_unary(CONNECT)
        malformed = raw(b"\x0a\xff\xff\xff\xff\x0f")
        assert await code_of(malformed) is grpc.StatusCode.INVALID_ARGUMENT
        later = echo_pb2.SayRequest()
        later.delay.FromSeconds(1)  # or the answer may be there before the client looks at the time
        assert await code_of(stub.Say(later, timeout=0)) is grpc.StatusCode.DEADLINE_EXCEEDED
        unknown = channel.unary_unary("/no.such.Service/Method")
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert await code_of(unknown(b"")) is grpc.StatusCode.NOT_FOUND
            took.append(time.monotonic() - began)
        assert min(took) < 0.05
        assert (
            await code_of(stub.Say(echo_pb2.SayRequest(fail_with=99)))
            is grpc.StatusCode.INVALID_ARGUMENT
        )
        assert (await stub.Say(echo_pb2.SayRequest(text="ok"))).text == "ok"


@pytest.mark.parametrize(
    ("size", "metadata"),
    [
        (100_000_000, ()),
        pytest.param(
            0, (("x-big", "y" * 100_000),), marks=pytest.mark.gateway_only(Why.LARGE_GRPC)
        ),
    ],
)
async def test_what_is_too_large_for_the_grpc_door(
    entry: Entry, size: int, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with grpc.aio.insecure_channel(entry.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(CONNECT)(b"x" * size, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        assert (await stub.Say(echo_pb2.SayRequest(text="ok"))).text == "ok"


async def test_nobody_forges_an_identity_from_outside(entry: Entry) -> None:
    forged = (("weft-identity-bin", b"\x0a\x04root"),)
    async with grpc.aio.insecure_channel(entry.grpc_address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        assert (await stub.Say(echo_pb2.SayRequest(), metadata=forged)).caller == entry.nobody
        talk = stub.Talk(iter([echo_pb2.TalkRequest(text="a")]), metadata=forged)
        assert [m.text async for m in talk] == ["a"]


async def test_all_kinds_of_rpc_pass_the_grpc_door(entry: Entry) -> None:
    async with grpc.aio.insecure_channel(entry.grpc_address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        repeated = [m.number async for m in stub.Repeat(echo_pb2.RepeatRequest(count=3))]
        assert repeated == [0, 1, 2]
        gathered = await stub.Gather(iter([echo_pb2.GatherRequest(text=t) for t in "ab"]))
        assert list(gathered.texts) == ["a", "b"]
        request = echo_pb2.SayRequest(text="a")
        answer = await stub.Say(request, timeout=3)
        assert timedelta(seconds=2) < answer.time_left.ToTimedelta() < timedelta(seconds=3.1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Say(echo_pb2.SayRequest(fail_with=9))
        assert rpc.error_from_call(caught.value).reason == "FAILED_PRECONDITION"
