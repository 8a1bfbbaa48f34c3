"""What becomes of answers to REST on their way to the caller: a filter that is on for routes of REST only."""

from __future__ import annotations

from functools import cache
from importlib import resources

from google.protobuf import any_pb2

from weft.registry.xds.resources import packed
from weft.xds.v1 import edge_pb2 as pb

FILTER = "answers"
_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"
_OF_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute"


@cache
def rest() -> any_pb2.Any:
    """The filter."""
    made = pb.Lua()
    made.default_source_code.inline_string = (
        resources.files(__package__).joinpath("answers.lua").read_text(encoding="utf-8")
    )
    return packed(_LUA, made)


def here() -> any_pb2.Any:
    """That it is on for a route."""
    return packed(_OF_ROUTE, pb.LuaOfRoute())
