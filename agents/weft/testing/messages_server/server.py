"""The server: one ASGI application on uvicorn's parser, in the running loop."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from weft.testing.messages_server import messages, scenarios
from weft.testing.messages_server.messages import Json
from weft.testing.messages_server.scenarios import Scenario

_SCENARIO = "scenario:"  # in metadata.user_id, before the name of one
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A request that came.

    Attributes:
        path: of the URL.
        headers: by lower-case name.
        body: as it was sent.
    """

    path: str
    headers: Mapping[str, str]
    body: Json

    @property
    def model(self) -> str:
        """The model that was asked."""
        return str(self.body.get("model", ""))


class _CutError(Exception):
    """The connection is to be cut."""


class _Protocol(HttpToolsProtocol):
    """Lets the application have its connection, to cut it."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: Any = {"weft.transport": self.transport}
        self.scope["extensions"] = extensions


class MessagesServer:
    """Speaks the Messages API as it is told.

    A request gets the next scenario of its model's queue, else of the queue for all, else the one its model always
    has, else the one that its metadata names (`user_id`: "scenario:overloaded"), else the one its model's name names
    (scenarios.BY_MODEL), else `otherwise`.

    Args:
        host: where to listen.
        port: 0 for any.
        flavour: how much of the API it knows: claude, ollama, vllm or litellm.
        otherwise: what it does where nobody said; by default it says back what was asked.

    Attributes:
        requests: what came, in order, those that failed too.
        cut: how many answers their caller did not wait for.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        flavour: str = "claude",
        otherwise: Scenario | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._flavour = messages.FLAVOURS[flavour]
        self._otherwise = otherwise or scenarios.echo()
        self._queue: deque[Scenario] = deque()
        self._queues: dict[str, deque[Scenario]] = {}
        self._always: dict[str, Scenario] = {}
        self._cache = messages.Cache()
        self._state = ServerState()
        self._server: asyncio.Server | None = None
        self._stopping = False
        self.requests: list[Recorded] = []
        self.cut = 0
        self.url = ""

    def answer(self, *given: Scenario, model: str = "") -> None:
        """Adds scenarios to the queue of a model, or of all."""
        queue = self._queues.setdefault(model, deque()) if model else self._queue
        queue.extend(given)

    def always(self, model: str, scenario: Scenario) -> None:
        """Says what a model does whenever its queue is empty."""
        self._always[model] = scenario

    def forget(self) -> None:
        """Empties queues and records."""
        self._queue.clear()
        self._queues.clear()
        self._always.clear()
        self.requests.clear()
        self.cut = 0

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: the address is taken.
        """
        config = Config(
            self._serve,
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        config.load()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Protocol(config=config, server_state=self._state, app_state={}),
            self._host,
            self._port,
        )
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Closes; answers that still come are cut."""
        if self._server is None:
            return
        self._stopping = True
        self._server.close()
        for connection in list(self._state.connections):
            transport = connection.transport
            if transport is not None:
                transport.abort()
        running = [task for task in self._state.tasks if not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            raw = await _body(receive)
            body = json.loads(raw) if raw else {}
        except ValueError:
            await _fail(send, scenarios.failure(400, "invalid_request_error", "no JSON"))
            return
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        recorded = Recorded(path=scope["path"], headers=headers, body=body)
        self.requests.append(recorded)
        answering = asyncio.ensure_future(self._answer(recorded, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                self.cut += 1
                return
            await answering
        except _CutError:
            scope["extensions"]["weft.transport"].abort()
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        finally:
            answering.cancel()
            gone.cancel()
            await asyncio.gather(answering, gone, return_exceptions=True)

    async def _answer(self, recorded: Recorded, send: Any) -> None:
        request = recorded.body
        if wrong := self._fault(recorded):
            await _fail(send, wrong)
            return
        if recorded.path.endswith("/count_tokens"):
            await _reply(send, 200, {"input_tokens": messages.tokens(request["messages"])})
            return
        scenario = self._scenario(request)
        if scenario.after < 0 and scenario.fault:
            await _wrong(scenario, send)
            return
        if scenario.status != 200:  # noqa: PLR2004 of HTTP
            await _fail(send, scenario)
            return
        blocks, stop = messages.content_of(request, scenario, self._flavour)
        usage = self._cache.usage(request, self._flavour)
        usage["output_tokens"] = messages.tokens([b.get("text") or b.get("input") for b in blocks])
        usage.update(scenario.usage)
        if request.get("stream"):
            await _stream(scenario, send, request, blocks, stop, usage)
        elif scenario.fault == "broken":
            await _reply(send, 200, b'{"type": "message", "content": [')
        else:
            await _reply(send, 200, messages.message(request, blocks, stop, usage))

    def _fault(self, recorded: Recorded) -> Scenario | None:
        if recorded.path not in {"/v1/messages", "/v1/messages/count_tokens"}:
            return scenarios.failure(404, "not_found_error", "there is nothing here")
        if recorded.path.endswith("/count_tokens"):
            return None
        wrong = messages.fault_of(recorded.body, self._flavour)
        return scenarios.failure(400, "invalid_request_error", wrong) if wrong else None

    def _scenario(self, request: Json) -> Scenario:
        model = request["model"]
        for queue in (self._queues.get(model), self._queue):
            if queue:
                return queue.popleft()
        named = str((request.get("metadata") or {}).get("user_id") or "")
        if named.startswith(_SCENARIO):
            found = scenarios.BY_MODEL.get(named.removeprefix(_SCENARIO))
            if found is not None:
                return found
        return self._always.get(model) or scenarios.BY_MODEL.get(model) or self._otherwise


async def _stream(
    scenario: Scenario, send: Any, request: Json, blocks: list[Json], stop: str, usage: Json
) -> None:
    headers = {**scenario.headers, "content-type": "text/event-stream"}
    await _start(send, 200, headers)
    for number, (kind, data) in enumerate(messages.events(request, blocks, stop, usage)):
        if scenario.fault and number >= scenario.after:
            await _wrong(scenario, send)
            return
        await asyncio.sleep(scenario.pause)
        await _event(send, kind, {"type": kind, **data}, named=scenario.event_lines)
    await send({"type": "http.response.body", "body": b""})


async def _wrong(scenario: Scenario, send: Any) -> None:
    """Does what goes wrong, at the place where it does."""
    match scenario.fault:
        case "stall":
            await asyncio.Event().wait()
        case "drop":
            # What was said before is on its way, unlike this.
            await asyncio.sleep(0.02)
            raise _CutError
        case "error":
            error = {"type": scenario.error, "message": scenario.message}
            await _event(send, "error", {"type": "error", "error": error})
        case "broken":
            line = b'event: content_block_delta\ndata: {"type": "content_bl\n\n'
            await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _event(send: Any, kind: str, data: Json, *, named: bool = True) -> None:
    line = f"event: {kind}\n" if named else ""
    sent = f"{line}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
    await send({"type": "http.response.body", "body": sent, "more_body": True})


async def _fail(send: Any, scenario: Scenario) -> None:
    error = {"type": scenario.error, "message": scenario.message}
    await _reply(send, scenario.status, {"type": "error", "error": error}, scenario.headers)


async def _reply(
    send: Any, status: int, body: Json | bytes, headers: Mapping[str, str] | None = None
) -> None:
    await _start(send, status, {**(headers or {}), "content-type": "application/json"})
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    await send({"type": "http.response.body", "body": raw})


async def _start(send: Any, status: int, headers: Mapping[str, str]) -> None:
    given = {"request-id": f"req_{next(_NUMBERS)}", **headers}
    encoded = [(key.encode(), value.encode("latin-1")) for key, value in given.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
