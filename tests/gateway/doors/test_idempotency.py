"""Idempotency keys at every door: a call is made once, and answered the same ever after."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import httpx
import pytest
from tests.gateway.entries import Entry

from weft import rpc
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2, echo_pb2_grpc
from weft.rpc.testing import wait_until

CONNECT = "/weft.echo.v1.EchoService/SayOnce"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the agent was told."""
    texts: list[str] = []
    say = Echo.Say

    async def counting(self: Echo, request: echo_pb2.SayRequest, context: Any) -> Any:
        texts.append(request.text)
        return await say(self, request, context)

    monkeypatch.setattr(Echo, "Say", counting)
    return texts


async def post(http: httpx.AsyncClient, key: str, **say: Any) -> httpx.Response:
    headers = {
        "idempotency-key": f"{key}-{http.base_url.port}"
    }  # a gateway remembers both entries' keys
    return await http.post(CONNECT, json={"say": say}, headers=headers)


async def test_a_repeated_call_is_made_once(http: httpx.AsyncClient, said: list[str]) -> None:
    first = await post(http, "once", text="a")
    quoted = {
        "idempotency-key": f'"once-{http.base_url.port}"'
    }  # the same key as a structured field
    again = await http.post(CONNECT, json={"say": {"text": "a"}}, headers=quoted)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert said == ["a"]


async def test_another_request_needs_another_key(http: httpx.AsyncClient, said: list[str]) -> None:
    await post(http, "reused", text="a")
    answer = await post(http, "reused", text="b")
    assert answer.status_code == 422
    assert "IDEMPOTENCY_KEY_REUSED" in answer.text
    assert said == ["a"]


async def test_a_failure_is_answered_again(http: httpx.AsyncClient, said: list[str]) -> None:
    answers = [await post(http, "fails", text="a", failWith=5) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()
    assert said == ["a"]


async def test_a_call_that_is_being_made_is_told_so_and_outlives_its_caller(
    http: httpx.AsyncClient, said: list[str]
) -> None:
    asking = asyncio.create_task(post(http, "slow", text="a", delay="1s"))
    await wait_until(lambda: said)
    answer = await post(http, "slow", text="a", delay="1s")
    assert answer.status_code == 409
    assert "IDEMPOTENCY_IN_PROGRESS" in answer.text
    assert answer.headers["retry-after"] == "1"
    asking.cancel()  # hangs up

    async def known() -> bool:
        return (await post(http, "slow", text="a", delay="1s")).status_code == 200

    await wait_until(known)
    assert said == ["a"]


async def test_a_call_without_effects_needs_no_memory(http: httpx.AsyncClient) -> None:
    for text in ("a", "b"):
        answer = await http.post(
            "/v1/echo:say", json={"text": text}, headers={"idempotency-key": "k"}
        )
        assert answer.json()["text"] == text
        assert "idempotency-replayed" not in answer.headers


@pytest.mark.parametrize("key", ["two words", "k" * 256, '"', "ü"])
async def test_a_key_has_a_form(http: httpx.AsyncClient, said: list[str], key: str) -> None:
    answer = await http.post(
        CONNECT, json={}, headers=[(b"idempotency-key", key.encode("latin-1"))]
    )
    assert answer.status_code == 400
    assert "idempotency-key" in answer.text
    assert said == []


async def test_the_grpc_door(entry: Entry, said: list[str]) -> None:
    async with grpc.aio.insecure_channel(entry.grpc_address) as channel:
        stub = echo_pb2_grpc.EchoServiceStub(channel)
        request = echo_pb2.SayOnceRequest(say=echo_pb2.SayRequest(text="a"))
        metadata = (("idempotency-key", f"grpc-{entry.at_edge}"),)
        first = await stub.SayOnce(request, metadata=metadata)
        call = stub.SayOnce(request, metadata=metadata)
        assert await call == first
        assert ("idempotency-replayed", "true") in tuple(await call.trailing_metadata())
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.SayOnce(echo_pb2.SayOnceRequest(), metadata=metadata)
        assert rpc.error_from_call(failed.value).reason == "IDEMPOTENCY_KEY_REUSED"
        gathering = stub.Gather(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await gathering
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said == ["a"]


async def test_a_key_means_the_same_in_every_form(http: httpx.AsyncClient, said: list[str]) -> None:
    message = echo_pb2.SayOnceRequest(say={"text": "form"}).SerializeToString()
    frame = len(message).to_bytes(5, "big") + message
    forms = [("application/proto", message), ("application/grpc-web+proto", frame)]
    replayed = []
    for kind, body in forms * 2:
        headers = {"content-type": kind, "idempotency-key": f"forms-{http.base_url.port}"}
        answer = await http.post(CONNECT, content=body, headers=headers)
        assert b"form" in answer.content
        replayed.append(answer.headers.get("idempotency-replayed"))
    assert replayed == [None, "true", "true", "true"]
    assert said == ["form"]
