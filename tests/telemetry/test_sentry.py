"""Errors that are a server's own fault reach Sentry, and nothing of what callers sent does."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from weft import rpc, telemetry
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import channel_for, wait_until

SECRET = "hunter2-of-a-customer"
SOON = timedelta(seconds=10)


class Sentry:
    """A server that takes envelopes."""

    def __init__(self) -> None:
        self.dsn = ""
        self.paths: list[str] = []
        self.raw: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            size = next(line for line in head.split("\r\n") if line.startswith("content-length"))
            body = await reader.readexactly(int(size.split(":")[1]))
            self.paths.append(head.split(" ")[1])
            self.raw.append(gzip.decompress(body) if "content-encoding: gzip" in head else body)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()

    @property
    def events(self) -> list[dict[str, Any]]:
        """Events of all envelopes: a header, then items of a header and a body each, a line apiece."""
        found = []
        for raw in self.raw:
            lines = raw.split(b"\n")
            for header, body in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(header).get("type") == "event":
                    found.append(json.loads(body))
        return found


@pytest.fixture
async def sentry() -> AsyncIterator[Sentry]:
    found = Sentry()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.dsn = f"http://key@127.0.0.1:{server.sockets[0].getsockname()[1]}/7"
    async with server:
        yield found


class Broken(Echo):
    """Fails as nobody thought of, with what its caller said on its lips."""

    async def Say(self, request: Any, context: Any) -> Any:
        if request.fail_with:
            return await super().Say(request, context)
        password = request.text
        raise LookupError(f"no account for {password}")


@contextlib.asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[Any]:
    add = echo_pb2_grpc.add_EchoServiceServicer_to_server
    async with (
        telemetry.start("greeter", sentry_dsn=dsn) as watched,
        channel_for(add, Broken(), telemetry=watched) as channel,
    ):
        yield channel


async def say(channel: Any, **fields: Any) -> grpc.StatusCode:
    stub = echo_pb2_grpc.EchoServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.Say(
            echo_pb2.SayRequest(text=SECRET, **fields), metadata=(("authorization", SECRET),)
        )
    return failed.value.code()


async def test_a_bug_is_told_with_nothing_of_its_caller(sentry):
    async with serving(sentry.dsn) as channel:
        assert await say(channel) is grpc.StatusCode.INTERNAL
        await wait_until(lambda: sentry.events, SOON)
    assert sentry.paths[0] == "/api/7/envelope/"
    (event,) = sentry.events
    (told,) = event["exception"]["values"]
    assert told["type"] == "LookupError"
    assert "value" not in told
    functions = [frame["function"] for frame in told["stacktrace"]["frames"]]
    assert "Say" in functions
    assert all("vars" not in frame for frame in told["stacktrace"]["frames"])
    assert event["tags"]["service"] == "greeter"
    assert event["tags"]["rpc.method"] == "weft.echo.v1.EchoService/Say"
    assert event["tags"]["rpc.response.status_code"] == "INTERNAL"
    assert len(event["tags"]["trace_id"]) == 32
    assert event["release"].startswith("weft@")
    for raw in sentry.raw:
        assert SECRET.encode() not in raw
        assert b"no account for" not in raw.replace(b'f"no account for', b"")


@pytest.mark.parametrize("code", [3, 5, 8, 14])
async def test_what_is_no_bug_is_not_told(sentry, code):
    async with serving(sentry.dsn) as channel:
        assert (await say(channel, fail_with=code)).value[0] == code
        await say(channel, fail_with=13)  # this one is
        await wait_until(lambda: sentry.events, SOON)
    assert [e["tags"]["rpc.response.status_code"] for e in sentry.events] == ["INTERNAL"]


async def test_a_storm_of_bugs_is_none_of_reports(sentry):
    async with serving(sentry.dsn) as channel:
        await asyncio.gather(*(say(channel) for _ in range(60)))
    assert 1 <= len(sentry.events) <= 30


async def test_a_sentry_that_is_away_disturbs_nobody():
    async with serving("http://key@127.0.0.1:1/7") as channel:
        with rpc.Deadline.after_seconds(2).applied():
            assert await say(channel) is grpc.StatusCode.INTERNAL


async def test_what_is_no_dsn_is_told():
    with pytest.raises(ValueError, match="DSN"):
        async with telemetry.start("greeter", sentry_dsn="here"):
            pass
