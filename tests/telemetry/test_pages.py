"""What a process shows by HTTP: metrics in both forms, pages of its own beside them; and what documents say of them."""

from __future__ import annotations

import socket
from pathlib import Path

import grpc
import httpx
import pytest

from weft import telemetry
from weft.telemetry import Instruments

_ROOT = Path(__file__).parents[2]


def test_every_metric_is_documented():
    listed = (_ROOT / "docs" / "operating.md").read_text()
    metrics = Instruments("test").registry.collect()
    ours = [m for m in metrics if not m.name.startswith(("process_", "python_", "target"))]
    assert len(ours) > 30
    names = [f"{m.name}_total" if m.type == "counter" else m.name for m in ours]
    assert [name for name in names if f"`{name}`" not in listed] == []
    assert all(m.documentation.endswith(".") for m in ours)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_metrics_and_pages_are_served(host: str):
    if host == "[::1]" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    async with telemetry.start("test", metrics_address=f"{host}:0") as watched:
        watched.metrics.server_call("a.B/C")(grpc.StatusCode.OK, 0.2, "f" * 32)
        watched.pages["/targets"] = lambda: [{"targets": ["127.0.0.1:1"]}]
        async with httpx.AsyncClient(
            base_url=f"http://{watched.metrics_address}", trust_env=False
        ) as client:
            plain = await client.get("/metrics")
            assert plain.headers["content-type"].startswith("text/plain")
            assert "trace_id" not in plain.text
            wanted = {"accept": "application/openmetrics-text;version=1.0.0"}
            told = await client.get("/metrics", headers=wanted)
            assert told.text.endswith("# EOF\n")
            assert f'# {{trace_id="{"f" * 32}"}} 0.2' in told.text
            assert "_created" not in told.text
            assert (await client.get("/targets")).json() == [{"targets": ["127.0.0.1:1"]}]


async def test_a_page_that_takes_too_long_says_so():
    def busy() -> None:
        raise TimeoutError

    async with telemetry.start("test", metrics_address="127.0.0.1:0") as watched:
        watched.pages["/targets"] = busy
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://{watched.metrics_address}/targets")
    assert answer.status_code == 503


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
