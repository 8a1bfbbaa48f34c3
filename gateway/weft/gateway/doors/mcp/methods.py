"""What each JSON-RPC method of MCP does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import orjson

from weft import rpc
from weft.gateway import failures
from weft.gateway.doors.calls import Calls
from weft.gateway.doors.mcp import calling, headers, protocol
from weft.gateway.doors.mcp.events import Events
from weft.gateway.doors.mcp.listing import Listing, freshness
from weft.gateway.doors.mcp.prompts import Prompt, complete, values_of_template
from weft.gateway.doors.mcp.protocol import Json, Outcome, ProtocolError
from weft.gateway.doors.mcp.sessions import Session
from weft.gateway.doors.mcp.shelf import Shelf
from weft.gateway.doors.mcp.visibility import Scopes, sees
from weft.gateway.http.exchange import Exchange


@dataclass(slots=True, kw_only=True)
class Request:
    """A JSON-RPC request and what is needed to answer it."""

    exchange: Exchange
    shelf: Shelf
    calls: Calls
    params: Json
    meta: Json
    scopes: Scopes | None
    session: Session | None
    """None: the request says all about itself."""
    events: Events | None
    """None: the caller takes no events."""

    @property
    def log_level(self) -> str:
        """The least severe log message the caller wants; empty: none."""
        if self.session is not None:
            return self.session.log_level
        level = self.meta.get(protocol.META_LOG_LEVEL)
        return level if isinstance(level, str) else ""

    def text(self, name: str) -> str:
        """A parameter that must be text.

        Raises:
            ProtocolError: it is not.
        """
        value = self.params.get(name)
        if not isinstance(value, str):
            raise protocol.invalid(f"{name} must be a string")
        return value


Handler = Callable[[Request], Awaitable[Outcome]]

CAPABILITIES: Mapping[str, Json] = MappingProxyType(
    {
        "tools": {"listChanged": True},
        "resources": {"listChanged": True, "subscribe": True},
        "prompts": {"listChanged": True},
        "completions": {},
        "logging": {},
    }
)


async def ping(request: Request) -> Outcome:
    """Whether the door is there."""
    del request
    return Outcome()


async def list_tools(request: Request) -> Outcome:
    """A page of the tools that the caller sees."""
    return _page(request, request.shelf.tool_list)


async def list_prompts(request: Request) -> Outcome:
    """A page of the prompts that the caller sees."""
    return _page(request, request.shelf.prompt_list)


async def list_resources(request: Request) -> Outcome:
    """A page of the resources that the caller sees."""
    return _page(request, request.shelf.resource_list)


async def list_templates(request: Request) -> Outcome:
    """A page of the resource templates that the caller sees."""
    return _page(request, request.shelf.template_list)


async def call_tool(request: Request) -> Outcome:
    """Calls the skill behind a tool."""
    tool = request.shelf.tools.get(request.text("name"))
    if tool is None or not sees(request.scopes, tool.ways):
        raise protocol.invalid(f"Unknown tool: {request.text('name')}")
    arguments = request.params.get("arguments")
    if arguments is None:
        arguments = {}
    elif not isinstance(arguments, dict):
        raise protocol.invalid("arguments must be an object")
    if tool.mirrored and request.session is None:
        headers.check_arguments(request.exchange, tool.mirrored, arguments)
    if request.events is not None:
        request.events.expect()
    asked = calling.Asked(_token(request), request.log_level, tool.name, request.events)
    return await calling.call_tool(request.calls, request.exchange, tool, arguments, asked)


async def read_resource(request: Request) -> Outcome:
    """The contents of a resource."""
    uri = request.text("uri")
    card = request.shelf.cards.get(uri)
    if card is not None and sees(request.scopes, card.ways):
        return card.read(request.scopes)
    found = request.shelf.offer(uri)
    if found is None or not sees(request.scopes, found[0].tool.ways):
        raise _no_resource(request, uri)
    offer, arguments = found
    try:
        replies = await calling.answers(request.calls, request.exchange, offer.tool, arguments)
        read = offer.tool.content.resource(uri, replies[0])
    except rpc.NotFound:
        raise _no_resource(request, uri) from None
    except rpc.Error as error:
        raise _protocol_error(error) from error
    # An agent may answer each caller differently, and at once differently.
    return Outcome(body=read.body, fresh=b'"ttlMs":0,"cacheScope":"private"')


async def watch_resource(request: Request) -> Outcome:
    """Tells the session of changes of a resource: when its agent comes, goes, or says it does something else."""
    uri = request.text("uri")
    if not sees_resource(request, uri):
        raise _no_resource(request, uri)
    assert request.session is not None
    request.session.watched.add(uri)
    return Outcome()


async def forget_resource(request: Request) -> Outcome:
    """Tells the session of a resource no longer."""
    assert request.session is not None
    request.session.watched.discard(request.text("uri"))
    return Outcome()


async def get_prompt(request: Request) -> Outcome:
    """A prompt with arguments filled in."""
    prompt = _prompt(request, request.text("name"))
    arguments = prompt.arguments(request.params.get("arguments"))
    if not prompt.made_by_agent:
        return prompt.from_example(arguments)
    tool = prompt.tool
    try:
        replies = await calling.answers(request.calls, request.exchange, tool, arguments)
        return prompt.of(tool.content.blocks(replies))
    except rpc.Error as error:
        raise _protocol_error(error) from error


async def complete_argument(request: Request) -> Outcome:
    """What an argument of a prompt or of a resource template may be."""
    ref, argument = request.params.get("ref"), request.params.get("argument")
    if not isinstance(ref, dict) or not isinstance(argument, dict):
        raise protocol.invalid("ref and argument must be objects")
    name, begun = argument.get("name"), argument.get("value")
    if not isinstance(name, str) or not isinstance(begun, str):
        raise protocol.invalid("argument takes a name and a value, both strings")
    shelf = request.shelf
    values: list[str] | None = None
    if ref.get("type") == "ref/prompt":
        values = _prompt(request, str(ref.get("name"))).values(name)
    elif ref.get("type") == "ref/resource":
        seen = [card for card in shelf.cards.values() if sees(request.scopes, card.ways)]
        offers = [offer for offer in shelf.offers if sees(request.scopes, offer.tool.ways)]
        values = values_of_template(str(ref.get("uri")), name, seen, offers)
    if values is None:
        raise protocol.invalid("there is no such argument")
    return complete(values, begun)


async def set_log_level(request: Request) -> Outcome:
    """Which log messages the session wants."""
    level = request.text("level")
    if level not in protocol.LOG_LEVELS:
        raise protocol.invalid(f"level must be one of {', '.join(protocol.LOG_LEVELS)}")
    assert request.session is not None
    request.session.log_level = level
    return Outcome()


async def discover(request: Request) -> Outcome:
    """What the door speaks and offers."""
    body = orjson.dumps(
        {
            "supportedVersions": protocol.SUPPORTED,
            "capabilities": dict(CAPABILITIES),
            "instructions": protocol.INSTRUCTIONS,
        }
    )
    return Outcome(body=body, fresh=freshness(private=request.scopes is not None))


_COMMON: dict[str, Handler] = {
    "tools/list": list_tools,
    "tools/call": call_tool,
    "resources/list": list_resources,
    "resources/templates/list": list_templates,
    "resources/read": read_resource,
    "prompts/list": list_prompts,
    "prompts/get": get_prompt,
    "completion/complete": complete_argument,
}
MODERN: Mapping[str, Handler] = MappingProxyType({**_COMMON, "server/discover": discover})
LEGACY: Mapping[str, Handler] = MappingProxyType(
    {
        **_COMMON,
        "ping": ping,
        "logging/setLevel": set_log_level,
        "resources/subscribe": watch_resource,
        "resources/unsubscribe": forget_resource,
    }
)


def sees_resource(request: Request, uri: str) -> bool:
    """Whether there is such a resource for the caller."""
    card = request.shelf.cards.get(uri)
    if card is not None:
        return sees(request.scopes, card.ways)
    found = request.shelf.offer(uri)
    return found is not None and sees(request.scopes, found[0].tool.ways)


def _page(request: Request, listing: Listing) -> Outcome:
    return listing.page(request.scopes, request.params.get("cursor"))


def _prompt(request: Request, name: str) -> Prompt:
    prompt = request.shelf.prompts.get(name)
    if prompt is None or not sees(request.scopes, prompt.tool.ways):
        raise protocol.invalid(f"Unknown prompt: {name}")
    return prompt


def _token(request: Request) -> object:
    token = request.meta.get("progressToken")
    if token is None or (isinstance(token, str | int) and not isinstance(token, bool)):
        return token
    raise protocol.invalid("progressToken must be a string or an integer")


def _no_resource(request: Request, uri: str) -> ProtocolError:
    code = (
        protocol.INVALID_PARAMS if request.session is None else protocol.LEGACY_RESOURCE_NOT_FOUND
    )
    return ProtocolError(code, "Resource not found", data={"uri": uri})


def _protocol_error(error: rpc.Error) -> ProtocolError:
    """An agent's error where a result has no place for one."""
    data = {"status": error.code.name, "reason": error.reason}
    if isinstance(error, rpc.InvalidArgument | rpc.NotFound):
        return ProtocolError(protocol.INVALID_PARAMS, error.message, data=data)
    status = failures.http_status(error)
    return ProtocolError(protocol.INTERNAL_ERROR, error.message, data=data, status=status)
