"""Connect's own clients, in Node.js and in a real browser, at the gateway's Connect and gRPC-Web doors."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google.rpc
import grpc_tools
import pytest
from tests.gateway.conftest import Mesh, routed, running
from tests.gateway.entries import Entry
from tests.gateway.webdriver import THERE, chromium

from weft.gateway.http.cors import Cors
from weft.rpc.testing import wait_until

HERE = Path(__file__).parent
PROTO = HERE.parents[2] / "proto"
PROTOS = (
    *("weft/echo/v1/echo.proto", "weft/v1/options.proto"),
    *("google/api/annotations.proto", "google/api/http.proto", "google/rpc/error_details.proto"),
)
CASES = 13
# What differs at an edge, by gRPC-Web that goes to agents: Why.TRACES and Why.WEB_FRAMES.
AT_GATEWAYS = ("headers both ways", "streams of requests are refused with a hint")

pytestmark = pytest.mark.timeout(180)  # the first time, npm fetches what the programs need
needs_browser = pytest.mark.skipif(
    not THERE, reason="needs Debian's packages chromium and chromium-driver"
)


@pytest.fixture(scope="module")
def programs() -> Path:
    """The folder of the programs, with what they import."""
    npm = shutil.which("npm")
    assert npm, "npm is missing: install Node.js 20 or newer"
    if not (HERE / "node_modules/.package-lock.json").exists():
        run(npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts")
    googleapis = Path(next(iter(google.rpc.__path__))).parents[1]
    (HERE / "gen").mkdir(exist_ok=True)
    run(
        *(sys.executable, "-m", "grpc_tools.protoc"),
        *(f"-I{PROTO}", f"-I{googleapis}", f"-I{resources.files(grpc_tools) / '_proto'}"),
        f"--plugin=protoc-gen-es={HERE / 'node_modules/.bin/protoc-gen-es'}",
        f"--es_out={HERE / 'gen'}",
        "--es_opt=target=js,import_extension=js",
        *PROTOS,
    )
    return HERE


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check(results: dict[str, dict[str, str]], *, transports: int, cases: int) -> None:
    """Every case was run at every transport, and each came out well."""
    wrong = {
        f"{transport}: {case}": result
        for transport, of in results.items()
        for case, result in of.items()
        if result != "ok"
    }
    assert wrong == {}
    assert {len(of) for of in results.values()} == {cases}
    assert len(results) == transports


async def test_in_node(programs: Path, mesh: Mesh, entry: Entry) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", str(programs / "node.js"), entry.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    results = json.loads(out)
    if entry.at_edge:
        for transport in ("gRPC-Web, binary", "gRPC-Web, binary, gzip"):
            for case in AT_GATEWAYS:
                assert results[transport][case] != "ok"
                results[transport][case] = "ok"
            # Why.WEB_REFUSALS, where Envoy sees sooner than the agent that time is up.
            assert results[transport]["a deadline"] in {"ok", "Error: found 14, expected 4"}
            results[transport]["a deadline"] = "ok"
    check(results, transports=10, cases=CASES)
    await wait_until(lambda: mesh.in_flight == 0)  # what was cancelled ended at the agent as well


@pytest.mark.browser
@needs_browser
async def test_in_a_browser(
    programs: Path, fresh_xds: None, database_url: str, tmp_path: Path
) -> None:
    with pages(programs) as origin:
        async with (
            running(database_url, cors=Cors([origin])) as mesh,
            chromium(tmp_path) as browser,
        ):
            await routed(mesh.http)
            await browser.post("url", url=f"{origin}/page.html?{quote(mesh.gateway.url, safe='')}")
            await browser.until("return window.results !== undefined")
            results = await browser.run("return window.results")
            check(results, transports=6, cases=CASES - 1)
            await wait_until(lambda: mesh.in_flight == 0)
            asked = await browser.asked()
    assert any("Say?" in url for url in asked)  # by GET
    assert any(url.endswith("/Repeat") for url in asked)


@pytest.mark.browser
@needs_browser
async def test_a_page_that_is_not_listed_is_kept_out(
    programs: Path, fresh_xds: None, database_url: str, tmp_path: Path
) -> None:
    with pages(programs) as origin:
        async with running(database_url) as mesh, chromium(tmp_path) as browser:
            await routed(mesh.http)
            await browser.post("url", url=f"{origin}/nothing.html")
            [asked] = [load.calls for load in (m.load for m in mesh.echo._members)]
            for request in (
                "{method: 'POST', body: '{}', headers: {'content-type': 'application/json'}}",
                "{method: 'POST'}",
                "{method: 'POST', mode: 'no-cors'}",
                "{}",
            ):
                await browser.run(
                    "window.said = undefined;"
                    f"fetch('{mesh.gateway.url}/v1/echo:say', {request})"
                    ".then(answer => answer.text()).then(text => { window.said = text; })"
                    ".catch(thrown => { window.said = 'kept out'; })"
                )
                await browser.until("return window.said !== undefined")
                assert await browser.run("return window.said") in {"kept out", ""}
            # Three of them a browser sends without a preflight; none of those that may change something
            # reached the agent.
            assert [load.calls - asked for load in (m.load for m in mesh.echo._members)] == [0]


@contextlib.contextmanager
def pages(folder: Path) -> Iterator[str]:
    """A web server of another origin; the modules of npm under their own names."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            if not self.path.startswith("/page.html"):
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            imports = json.dumps({"imports": modules(folder)})
            page = f'<!doctype html><script type="importmap">{imports}</script>'
            page += '<script type="module" src="/page.js"></script>'
            self.wfile.write(page.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def modules(folder: Path) -> dict[str, str]:
    """An import map of what the packages export."""
    found = {}
    for name in ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"):
        package = json.loads((folder / "node_modules" / name / "package.json").read_text())
        for door, target in package["exports"].items():
            path = target["import"] if isinstance(target, dict) else target
            while isinstance(path, dict):
                path = path["default"]
            found[(name + door[1:]).rstrip("/")] = f"/node_modules/{name}/{path.removeprefix('./')}"
    return found
