"""Server-sent events: how HTTP doors carry a server-streaming method (WHATWG HTML, section 9.2).

data: {message as JSON}            one event per message
: keep-alive                       nothing was said for a while
event: end    data: {}             the call ended well
event: error  data: {the error}    the call failed after the answer had begun

The answer begins with the first message, or with the first sign of life.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from weft import rpc
from weft.gateway.doors.heartbeat import Heartbeat
from weft.gateway.http.exchange import Exchange, Headers

_HEADERS: Headers = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]
_END = b"event: end\ndata: {}\n\n"


async def send_events(
    exchange: Exchange,
    messages: AsyncIterator[bytes],
    to_json: Callable[[bytes], bytes],
    render: Callable[[rpc.Error], bytes],
) -> rpc.Error | None:
    """Sends messages as events and returns the error that ended them, if one did.

    Raises:
        rpc.Error: nothing was sent yet, and the status can still be told.
    """
    beat = Heartbeat(exchange, _HEADERS)
    beat.start()
    failed: rpc.Error | None = None
    last = _END
    try:
        async for message in messages:
            if not exchange.started:
                await exchange.begin(200, list(_HEADERS))
            beat.sent()
            await exchange.write(b"data: " + to_json(message) + b"\n\n", more=True)
    except rpc.Error as error:
        if not exchange.started:
            raise
        failed = error
        last = b"event: error\ndata: " + render(failed) + b"\n\n"
    finally:
        await beat.stop()
    if not exchange.started:
        await exchange.begin(200, list(_HEADERS))
    await exchange.write(last, more=False)
    return failed
