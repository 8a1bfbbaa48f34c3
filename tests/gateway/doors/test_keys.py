"""API keys at every door: who is let in, what others are told, and what is never logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import grpc
import pytest

from weft import rpc
from weft.echo.v1 import echo_pb2, echo_pb2_grpc

REST = "/v1/echo:say"
CONNECT = "/weft.echo.v1.EchoService/Say"
DOORS = [REST, CONNECT]


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What Weft logs during a test, whatever became of the root logger."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, handler = logging.getLogger("weft"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_keys_at_every_door(logged: list[logging.LogRecord], own_with_keys) -> None:
    mesh, good, bad = own_with_keys
    http = mesh.http
    async with grpc.aio.insecure_channel(mesh.gateway.grpc_address) as channel:
        say = echo_pb2_grpc.EchoServiceStub(channel).Say
        for key, reason in (
            (None, "KEY_MISSING"),
            ("nonsense", "KEY_MALFORMED"),
            (bad.text, "KEY_REVOKED"),
        ):
            for door in DOORS:
                headers = {} if key is None else {"authorization": f"Bearer {key}"}
                answer = await http.post(door, json={}, headers=headers)
                assert answer.status_code == 401
                assert reason in answer.text
                assert "www-authenticate" in answer.headers
            metadata = () if key is None else (("x-api-key", key),)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await say(echo_pb2.SayRequest(), metadata=metadata)
            assert rpc.error_from_call(caught.value).reason == reason
        answer = await http.post(CONNECT, json={}, headers={"x-api-key": good.text})
        assert answer.json()["caller"] == f"key:{good.key.id}"
        told = await say(echo_pb2.SayRequest(), metadata=(("x-api-key", good.text),))
        assert told.caller == f"key:{good.key.id}"
    secrets = [key.text.rpartition("_")[2] for key in (good, bad)]
    assert logged
    for record in logged:
        assert not any(secret in str(vars(record)) for secret in secrets)
