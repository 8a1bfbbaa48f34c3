"""A real browser for tests, driven by WebDriver (W3C): Debian's packages chromium and chromium-driver."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from weft.rpc.testing import wait_until

THERE = bool(shutil.which("chromedriver") and shutil.which("chromium"))
PATIENCE = timedelta(seconds=20)
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
]


@dataclass(frozen=True, slots=True)
class Browser:
    driver: httpx.AsyncClient

    async def post(self, path: str, **body: Any) -> Any:
        answer = await self.driver.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    async def run(self, script: str) -> Any:
        return await self.post("execute/sync", script=script, args=[])

    async def until(self, script: str) -> None:
        await wait_until(lambda: self.run(script), PATIENCE)

    async def complaints(self) -> list[str]:
        """Errors and warnings of the console, breaches of the content security policy among them."""
        entries = await self.post("se/log", type="browser")
        return [entry["message"] for entry in entries if entry["level"] in {"SEVERE", "WARNING"}]

    async def asked(self) -> set[str]:
        """Every URL the page asked for."""
        entries = await self.post("se/log", type="performance")
        events = [json.loads(entry["message"])["message"] for entry in entries]
        return {
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        }


@contextlib.asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """A browser of its own, whose files are in the folder `profile`."""
    with _chromedriver() as address:
        async with httpx.AsyncClient(base_url=address, timeout=60) as driver:

            async def ready() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return bool((await driver.get("/status")).json()["value"]["ready"])
                return False

            await wait_until(ready, PATIENCE)
            wanted = {
                "goog:chromeOptions": {"args": [*FLAGS, f"--user-data-dir={profile}"]},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }
            made = await driver.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
            assert made.status_code == 200, made.text
            session = made.json()["value"]["sessionId"]
            driver.base_url = httpx.URL(f"{address}/session/{session}/")
            yield Browser(driver)
            # With the slash of the base URL chromedriver knows no such command, and Chromium outlives it.
            ended = await driver.delete(f"{address}/session/{session}")
            assert ended.status_code == 200, ended.text


@contextlib.contextmanager
def _chromedriver() -> Iterator[str]:
    """The address of a WebDriver server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
