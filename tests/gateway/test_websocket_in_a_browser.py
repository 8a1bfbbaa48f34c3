"""The WebSocket door from a page, whose scripts can set no headers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.gateway.webdriver import THERE, Browser, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not THERE, reason="needs Debian's packages chromium and chromium-driver"),
]

TALK = """
const key = arguments[0];
const url = location.origin.replace("http", "ws") + "/ws/weft.echo.v1.EchoService/";
const results = window.results = {};

function call(name, method, protocols, frames) {
  const heard = [];
  const socket = new WebSocket(url + method, protocols);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => frames.forEach(frame => socket.send(frame));
  socket.onmessage = event => {
    const message = typeof event.data === "string" ? JSON.parse(event.data) : [...new Uint8Array(event.data)];
    heard.push(message);
    if (message.end) socket.send(end);
  };
  socket.onclose = event => {
    results[name] = {heard, code: event.code, clean: event.wasClean, protocol: socket.protocol};
  };
}

const text = JSON.stringify, start = headers => text({"@start": {headers}}), end = text({"@end": {}});
call("subprotocol", "Talk", ["weft.v1.json", "weft.bearer." + key], [text({text: "a"}), text({text: "b"}), end]);
call("first frame", "Gather", [], [start({authorization: "Bearer " + key}), text({text: "c"}), end]);
call("binary", "Talk", ["weft.v1.proto", "weft.bearer." + key], [new Uint8Array([10, 1, 100]), end]);
call("nobody", "Talk", "weft.v1.json", [text({text: "a"})]);
const repeat = {id: "a", method: "weft.echo.v1.EchoService/Repeat", request: {text: "e", count: 1}};
call("events", "../events", ["weft.v1.json", "weft.bearer." + key], [text({subscribe: repeat})]);
call("deadline", "Talk", [], [start({authorization: "Bearer " + key, "x-request-timeout": "0.1s"})]);
"""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path) as found:
        yield found


async def test_a_page_calls_by_websocket(own_with_keys, browser: Browser) -> None:
    mesh, good, _ = own_with_keys
    await browser.post("url", url=f"{mesh.gateway.url}/docs")
    await browser.post("execute/sync", script=TALK, args=[good.text])
    await browser.until("return Object.keys(window.results).length === 6")
    found = await browser.run("return window.results")
    told = {name: (each["code"], each["clean"], each["protocol"]) for name, each in found.items()}
    assert told == {
        "subprotocol": (1000, True, "weft.v1.json"),
        "first frame": (1000, True, ""),
        "binary": (1000, True, "weft.v1.proto"),
        "nobody": (4016, True, "weft.v1.json"),
        "events": (1000, True, "weft.v1.json"),
        "deadline": (4004, True, ""),
    }
    assert found["subprotocol"]["heard"] == [{"text": "a"}, {"text": "b"}]
    assert found["first frame"]["heard"] == [{"texts": ["c"]}]
    assert found["binary"]["heard"] == [[10, 1, 100]]
    assert found["events"]["heard"] == [
        {"id": "a", "message": {"text": "e"}},
        {"id": "a", "end": {}},
    ]
    (refused,) = found["nobody"]["heard"]
    assert refused["@error"]["status"] == "UNAUTHENTICATED"
