"""Log lines: what is in one, and that each line of a served request names the trace of that request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NoReturn

import httpx
import pytest

from weft import rpc
from weft.agents import Host
from weft.agents.echo import Echo
from weft.echo.v1 import echo_pb2
from weft.gateway import Gateway
from weft.registry import Registry
from weft.rpc.testing import wait_until
from weft.telemetry import logs

log = logging.getLogger("test.agent")


def _trace_id() -> str:
    call = rpc.current_call()
    return call.trace_id if call is not None else ""


@pytest.fixture
def set_up(capsys: pytest.CaptureFixture[str]) -> Any:
    """`logs.setup`, to what `capsys` reads."""
    return logs.setup


def test_a_line_of_json_tells_who_when_and_what(set_up, capsys):
    set_up("gateway", form="json", trace_id=lambda: "ab" * 16)
    logging.getLogger("weft.gateway").warning("not %s\n", "served", extra={"agent": "echo", "n": 2})
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "WARNING",
        "service": "gateway",
        "logger": "weft.gateway",
        "message": "not served\n",
        "agent": "echo",
        "n": 2,
        "trace_id": "ab" * 16,
    }


def test_an_exception_stays_on_one_line(set_up, capsys):
    set_up("agents", form="json")
    failure = ValueError("a reason\non two lines")
    log.error("it failed", exc_info=failure, extra={"span": timedelta(seconds=2)})
    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert "ValueError: a reason\non two lines" in line["exception"]
    assert line["span"] == "0:00:02"
    assert "trace_id" not in line, "none is running"


def test_a_line_for_a_terminal(set_up, capsys):
    set_up("gateway", form="text", trace_id=lambda: "cd" * 16)
    log.info("routes made", extra={"agents": 6})
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO +gateway +routes made agents=6 trace_id=(cd){16}\n", told
    )


def test_less_than_the_level_is_not_shown(set_up, capsys):
    set_up("gateway", level="WARNING")
    log.info("quiet")
    log.warning("loud")
    assert "quiet" not in (told := capsys.readouterr().err)
    assert "loud" in told


class Talkative(Echo):
    """Logs at the beginning and the end of a call; fails on the word "fail"."""

    async def Say(self, request: echo_pb2.SayRequest, context: Any) -> echo_pb2.SayResponse:
        log.info("began", extra={"text": request.text})
        answer = await super().Say(request, context)
        log.info("ends", extra={"text": request.text})
        if request.text == "fail":
            raise ValueError("a secret of the agent")
        return answer


@contextlib.asynccontextmanager
async def mesh(database_url: str) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    async with (
        Registry(
            database_url=database_url, address="127.0.0.1:0", cold_start=timedelta(0)
        ) as registry,
        Host(registry=registry.address) as host,
    ):
        host.add(Talkative())
        await host.start()
        async with (
            Gateway(
                registry=registry.address,
                database_url=database_url,
                listen="127.0.0.1:0",
                grpc_listen="127.0.0.1:0",
            ) as gateway,
            httpx.AsyncClient(base_url=gateway.url, timeout=20) as http,
        ):

            async def served() -> bool:
                return (await http.get("/v1/echo/ready")).status_code == 200

            await wait_until(served)
            yield gateway, http


def _lines(capsys: pytest.CaptureFixture[str], *loggers: str) -> list[dict[str, Any]]:
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    return [line for line in lines if line["logger"] in loggers]


def _traceparent(trace_id: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{'1' * 16}-00"}


async def test_every_line_of_a_request_names_its_trace(
    set_up, capsys, monkeypatch, fresh_xds, database_url
):
    set_up("mesh", form="json", trace_id=_trace_id)
    async with mesh(database_url) as (gateway, http):
        capsys.readouterr()

        # Many at a time, each waiting in between, so that a line could take the trace of another.
        traces = {f"text {n}": f"{n + 1:032x}" for n in range(20)}
        request = {"delay": "0.05s"}
        answers = await asyncio.gather(
            *(
                http.post(
                    "/v1/echo:say", json={**request, "text": text}, headers=_traceparent(trace)
                )
                for text, trace in traces.items()
            )
        )
        assert [answer.status_code for answer in answers] == [200] * 20
        lines = _lines(capsys, "test.agent")
        assert len(lines) == 40
        assert {(line["text"], line["trace_id"]) for line in lines} == set(traces.items())

        # A trace that begins at the gateway is told to the caller, and is the one of the agent's lines.
        answer = await http.post("/v1/echo:say", json={"text": "alone"})
        began = answer.headers["traceparent"].split("-")[1]
        assert [line["trace_id"] for line in _lines(capsys, "test.agent")] == [began, began]

        # What the runtime of the agent says of a failure.
        answer = await http.post(
            "/v1/echo:say", json={"text": "fail"}, headers=_traceparent("f" * 32)
        )
        assert answer.status_code == 500
        assert "secret" not in answer.text
        told = _lines(capsys, "test.agent", "weft.rpc")
        assert [line["logger"] for line in told] == ["test.agent", "test.agent", "weft.rpc"]
        assert "ValueError: a secret of the agent" in told[-1]["exception"]
        assert {line["trace_id"] for line in told} == {"f" * 32}

        # What the gateway says of a fault of its own.
        def faulty(*_: object, **__: object) -> NoReturn:
            raise RuntimeError("a fault of the gateway")

        monkeypatch.setattr(gateway._upstream, "unary", faulty)
        monkeypatch.setattr(gateway._upstream, "repeatable", faulty)
        answer = await http.post(
            "/v1/echo:say", json={"text": "lost"}, headers=_traceparent("e" * 32)
        )
        assert answer.status_code == 500
        (line,) = _lines(capsys, "weft.gateway")
        assert line["message"] == "weft.echo.v1.EchoService/Say by rest failed"
        assert line["trace_id"] == "e" * 32
