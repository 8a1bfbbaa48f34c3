"""`subscriptions/listen`: one request, answered by a stream of changes for as long as its caller stays."""

from __future__ import annotations

import orjson

from weft.gateway.doors.mcp import protocol
from weft.gateway.doors.mcp.changes import Changes
from weft.gateway.doors.mcp.events import pass_on
from weft.gateway.doors.mcp.methods import Request, sees_resource
from weft.gateway.doors.mcp.protocol import Json, Outcome, ProtocolError
from weft.gateway.doors.mcp.shelf import PROMPTS, RESOURCES, TOOLS

_LISTS = {
    "toolsListChanged": TOOLS,
    "promptsListChanged": PROMPTS,
    "resourcesListChanged": RESOURCES,
}
_MOST_WATCHED = 1_000  # resources


async def listen(request: Request, request_id: bytes, changes: Changes) -> None:
    """Tells the caller of the changes it asked for, and of no others.

    Raises:
        ProtocolError: what it asks for is malformed, or it takes no events.
    """
    wanted = request.params.get("notifications")
    if not isinstance(wanted, dict):
        raise protocol.invalid("notifications must be an object")
    uris = wanted.get("resourceSubscriptions", [])
    if not isinstance(uris, list) or len(uris) > _MOST_WATCHED:
        raise protocol.invalid(f"resourceSubscriptions must be a list of at most {_MOST_WATCHED}")
    stream = request.events
    if stream is None:
        raise ProtocolError(protocol.INVALID_REQUEST, "accept text/event-stream", status=406)
    heard = {key: kind for key, kind in _LISTS.items() if wanted.get(key) is True}
    watched = [uri for uri in uris if isinstance(uri, str) and sees_resource(request, uri)]
    agreed: Json = dict.fromkeys(heard, True)
    if watched:
        agreed["resourceSubscriptions"] = watched
    meta = {protocol.META_SUBSCRIPTION: orjson.loads(request_id)}
    told = protocol.notification(
        "notifications/subscriptions/acknowledged", {"_meta": meta, "notifications": agreed}
    )
    with changes.listening(frozenset(heard.values()), lambda: frozenset(watched)) as listener:
        await stream.send(told)
        if await pass_on(request.exchange, stream, listener, meta):
            closing = Outcome(meta=orjson.dumps(meta)[1:-1])
            await stream.send(protocol.result(request_id, closing, modern=True), last=True)
