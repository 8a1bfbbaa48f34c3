"""What the gateway does while the mesh behind it, or its callers, come and go."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from weft.agents import Host
from weft.rpc.testing import wait_until
from weft.support.v1 import quality_pb2_grpc

if TYPE_CHECKING:
    from tests.gateway.conftest import Mesh

SAY = "/v1/echo:say"


def reason(answer: httpx.Response) -> str:
    details = answer.json()["error"]["details"]
    return next(d["reason"] for d in details if d["@type"].endswith("ErrorInfo"))


async def test_a_caller_that_hangs_up_cancels_the_agent_s_work(own: Mesh) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await own.http.post(
            SAY, json={"delay": "30s"}, timeout=0.5, headers={"x-request-timeout": "60"}
        )
    await wait_until(lambda: own.in_flight == 0)


async def test_an_agent_that_comes_later_is_served_within_a_second(own: Mesh) -> None:
    class Lenient(quality_pb2_grpc.QualityServiceServicer):
        """Judges nothing."""

    path = "/weft.support.v1.QualityService/Review"
    assert (await own.http.post(path, json={})).status_code == 404
    async with Host(registry=own.registry) as late:
        late.add(Lenient())
        await late.start()
        began = time.monotonic()

        async def served() -> bool:
            return (await own.http.post(path, json={})).status_code == 501

        await wait_until(served)
        assert time.monotonic() - began < 1


async def test_an_agent_that_is_gone_is_unavailable_not_unknown(own: Mesh) -> None:
    await own.echo.stop()

    async def gone() -> bool:
        return (await own.http.post(SAY, json={})).status_code == 503

    await wait_until(gone)
    answer = await own.http.post(SAY, json={})
    assert reason(answer) in {"AGENT_UNAVAILABLE", "CIRCUIT_OPEN"}
    assert "127.0.0.1" not in answer.text
    assert answer.headers["retry-after"]


async def test_a_failing_method_opens_its_circuit_and_no_other(own: Mesh) -> None:
    answers = [await own.http.post(SAY, json={"failWith": 14}) for _ in range(30)]
    assert reason(answers[0]) != "CIRCUIT_OPEN"
    assert reason(answers[-1]) == "CIRCUIT_OPEN"
    assert int(answers[-1].headers["retry-after"]) >= 1
    other = await own.http.post("/weft.echo.v1.EchoService/SayOnce", json={})
    assert other.status_code == 200


async def test_a_stopping_gateway_finishes_what_it_has(own: Mesh) -> None:
    running = asyncio.create_task(own.http.post(SAY, json={"delay": "0.3s"}))
    await wait_until(lambda: own.in_flight == 1)
    await own.gateway.stop()
    assert (await running).status_code == 200
