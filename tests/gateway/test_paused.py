"""An agent that operators hold back, as callers at the gateway see it."""

from __future__ import annotations

from weft import rpc
from weft.rpc.testing import wait_until
from weft.v1 import lifecycle_pb2, lifecycle_pb2_grpc


async def test_callers_are_told_at_once_and_circuits_stay_closed(own, entry_of_own):
    async with rpc.Channel(own.registry) as channel:
        operator = lifecycle_pb2_grpc.LifecycleServiceStub(channel)
        pause = lifecycle_pb2.PauseAgentRequest(agent="echo", reason="wrong prices")
        await operator.PauseAgent(pause)

        async def told() -> bool:
            answer = await entry_of_own.http.get("/v1/echo/hello")
            assert answer.status_code == 503
            error = answer.json()["error"]
            assert "wrong prices" in error["message"]
            reasons = [each.get("reason") for each in error["details"]]
            return "AGENT_PAUSED" in reasons

        await wait_until(told)
        for _ in range(30):
            assert await told()
        await operator.ResumeAgent(lifecycle_pb2.ResumeAgentRequest(agent="echo"))

        async def served() -> bool:
            answer = await entry_of_own.http.get("/v1/echo/hello")
            assert "CIRCUIT_OPEN" not in answer.text
            return answer.status_code == 200

        await wait_until(served)
