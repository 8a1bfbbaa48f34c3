"""Many streams over one WebSocket, /ws/events: events of jobs, of conversations, of whatever an agent streams.

The caller subscribes to server-streaming methods and leaves them, each under an id of its own choice:

    {"subscribe": {"id": "a", "method": "weft.v1.JobService/WatchJob", "request": {"id": "...", "after": "7"}}}
    {"unsubscribe": {"id": "a"}}

and is told, under that id, what the stream says:

    {"id": "a", "message": {...}}      {"id": "a", "error": {...}}      {"id": "a", "end": {}}

Each subscription is a call through all guards. While the caller does not read, no stream goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import grpc
import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.websocket.door import FIRST_FRAME, NAME, answered
from weft.gateway.doors.websocket.frames import FrameMalformed
from weft.gateway.doors.websocket.socket import Socket
from weft.gateway.failures import AgentUnknown
from weft.gateway.http.cors import Cors
from weft.gateway.http.exchange import Exchange
from weft.gateway.transcoding.catalog import Idempotency, Method

log = logging.getLogger("weft.gateway")

PATH = "/ws/events"

FindMethod = Callable[[str], Method | None]
Ended = Callable[[Exchange, str, str, grpc.StatusCode, float], None]

_MOST = 100  # subscriptions of a socket
_LONGEST_ID = 100


class TooManySubscriptions(rpc.ResourceExhausted):
    """This WebSocket has 100 subscriptions; leave one, or open another WebSocket."""

    reason = "TOO_MANY_SUBSCRIPTIONS"


class SubscriptionExists(rpc.AlreadyExists):
    """There is a subscription of this id."""

    reason = "SUBSCRIPTION_EXISTS"


class NoStream(rpc.InvalidArgument):
    """The method does not answer one request with a stream: it cannot be subscribed to."""

    reason = "NO_STREAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribe:
    """The caller wants a stream."""

    id: str
    method: str
    request: Any = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """The caller has enough of one."""

    id: str


class Events:
    """Serves the WebSockets of /ws/events.

    Args:
        calls: the way to agents.
        find: the method of a path, as it is known now.
        cors: which pages of other origins may subscribe.
        ended: told how each subscription ended: its request, door, method, status, seconds.
    """

    def __init__(self, calls: Calls, find: FindMethod, cors: Cors, ended: Ended) -> None:
        self._calls = calls
        self._find = find
        self._cors = cors
        self._ended = ended
        self._open: set[asyncio.Task[Any]] = set()

    async def serve(self, socket: Socket) -> rpc.Error | None:
        """Serves one, and returns the error with which it ended."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            return await answered(self._cors, socket, lambda: self._work(socket))
        finally:
            self._open.discard(task)

    def close(self) -> None:
        """Ends all that are open: their callers are told that the gateway stops."""
        for task in self._open:
            task.cancel()

    async def _work(self, socket: Socket) -> None:
        await socket.begin(FIRST_FRAME)
        await self._calls.visit(socket.exchange)
        running: dict[str, asyncio.Task[None]] = {}
        left: set[str] = set()
        try:
            async for text in socket.texts():
                said = read(text)
                if isinstance(said, Unsubscribe):
                    if (task := running.get(said.id)) is not None:
                        left.add(said.id)
                        task.cancel()
                    continue
                wrong = _refused(said, running)
                if wrong is not None:
                    await socket.say(_error(said.id, wrong))
                    continue
                task = asyncio.create_task(
                    self._follow(socket, said, left), name=f"events {said.id}"
                )
                running[said.id] = task
                task.add_done_callback(_forgetting(running, said.id))
                await asyncio.sleep(0)  # it has begun when it is left, and says that it ends
        finally:
            for task in (rest := list(running.values())):
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    async def _follow(self, socket: Socket, asked: Subscribe, left: set[str]) -> None:
        """One subscription, in a task of its own: it has a caller and a deadline of its own.

        `left` holds the ids of those that the caller has left; any other that is cancelled ends with its WebSocket.
        """
        exchange = _part_of(socket.exchange)
        name, code, began = "unknown", grpc.StatusCode.OK, perf_counter()
        try:
            method = self._method(asked.method)
            name = method.full_name
            await self._stream(socket, exchange, method, asked)
            last = _frame(asked.id, b"end", b"{}")
        except rpc.Error as failed:
            code = failed.code
            last = _error(asked.id, failed)
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            if asked.id not in left:
                raise
            last = _frame(asked.id, b"end", b"{}")
        except Exception:
            log.exception("%s failed", asked.method)
            code = grpc.StatusCode.INTERNAL
            last = _error(asked.id, rpc.Internal())
        finally:
            left.discard(asked.id)
            self._ended(exchange, NAME, name, code, perf_counter() - began)
        with contextlib.suppress(rpc.Error):  # the caller is gone
            await socket.say(last)

    def _method(self, name: str) -> Method:
        found = self._find(f"/{name.lstrip('/')}")
        if found is None:
            raise AgentUnknown
        return found

    async def _stream(
        self, socket: Socket, exchange: Exchange, method: Method, asked: Subscribe
    ) -> None:
        await self._calls.admit(exchange, method, NAME)
        if method.client_streaming or not method.server_streaming:
            raise NoStream
        request = method.request_codec.to_wire(orjson.dumps(asked.request))
        call = exchange.call
        assert call is not None
        if method.idempotency is Idempotency.NO_SIDE_EFFECTS:
            # Whoever looks on does so for as long as there is something to see.
            call.deadline = rpc.Deadline.after_seconds(math.inf)
        messages = self._calls.stream(exchange, method, request)
        async with contextlib.aclosing(messages):
            async for message in messages:
                shown = method.response_codec.to_json(message)
                await socket.say(_frame(asked.id, b"message", shown))


def read(text: str) -> Subscribe | Unsubscribe:
    """What a frame of the caller says.

    Raises:
        FrameMalformed: it says nothing that is known.
    """
    try:
        said = orjson.loads(text)
    except ValueError:
        raise FrameMalformed("The frame is not JSON.") from None
    match said:
        case {"subscribe": {"id": str(id_), "method": str(method), **further}, **beside}:
            request = further.pop("request", {})
            if not (further or beside) and 0 < len(id_) <= _LONGEST_ID:
                return Subscribe(id=id_, method=method, request=request)
        case {"unsubscribe": {"id": str(id_), **further}, **beside} if not (further or beside):
            return Unsubscribe(id=id_)
    raise FrameMalformed(
        'Say {"subscribe": {"id", "method", "request"}} or {"unsubscribe": {"id"}}; '
        f"an id has 1 to {_LONGEST_ID} characters."
    )


def _refused(asked: Subscribe, running: dict[str, asyncio.Task[None]]) -> rpc.Error | None:
    if asked.id in running:
        return SubscriptionExists()
    return TooManySubscriptions() if len(running) >= _MOST else None


def _forgetting(
    running: dict[str, asyncio.Task[None]], id_: str
) -> Callable[[asyncio.Task[None]], None]:
    def forget(task: asyncio.Task[None]) -> None:
        del running[id_]
        if not task.cancelled():
            task.exception()  # the caller is gone

    return forget


def _part_of(exchange: Exchange) -> Exchange:
    """A request of its own for a subscription, with the headers of the WebSocket."""
    scope = {
        "method": exchange.method,
        "raw_path": exchange.path.encode("latin-1"),
        "query_string": b"",
        "headers": exchange.headers,
    }
    return Exchange(scope, _nothing, exchange.send)


async def _nothing() -> MutableMapping[str, Any]:
    """The caller is looked after by who reads the WebSocket."""
    await asyncio.Event().wait()
    raise AssertionError


def _frame(id_: str, kind: bytes, content: bytes) -> str:
    return (b'{"id":%s,"%s":%s}' % (orjson.dumps(id_), kind, content)).decode()


def _error(id_: str, failed: rpc.Error) -> str:
    told = failures.aip193(failed).decode()
    return f'{{"id":{orjson.dumps(id_).decode()},{told.removeprefix("{")}'
