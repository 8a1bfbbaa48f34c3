"""Partial answers: which fields of a reply a caller wants to see.

Given as `$fields` in the query or in the header X-Goog-FieldMask, Google's system parameters for any method:
field paths with dots, separated by commas, in camelCase or snake_case, through lists as well; `*` is everything.
A method's own `read_mask` (AIP-157) is a field of its request like any other, and the agent's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft import rpc
from weft.gateway.transcoding.fields import SPECIAL_JSON, by_any_name, is_map

_LONGEST = 4_096  # characters
_DEEPEST = 32  # names in a path
_SHOWN = 100  # characters of a path repeated in an error


class Mask:
    """The fields to keep.

    Args:
        text: the mask as the caller wrote it.
        message: what the reply is.

    Raises:
        rpc.InvalidArgument: it names what is no field.
    """

    def __init__(self, text: str, message: Descriptor) -> None:
        if len(text) > _LONGEST:
            raise rpc.InvalidArgument(f"is longer than {_LONGEST} characters", field="$fields")
        paths = [path.strip() for path in text.split(",")]
        self._everything = "*" in paths
        self._tree: dict[str, Any] = {}  # by JSON name; a field kept whole: an empty dict
        for path in paths:
            if path != "*":
                self._add([field.json_name for field in _resolve(path, message)])

    def _add(self, names: Sequence[str]) -> None:
        tree = self._tree
        for name in names[:-1]:
            if tree.get(name) == {}:
                return  # kept whole already
            tree = tree.setdefault(name, {})
        tree[names[-1]] = {}

    def apply(self, json: bytes) -> bytes:
        """A reply in JSON with nothing but these fields."""
        return json if self._everything else orjson.dumps(_kept(orjson.loads(json), self._tree))


def _resolve(path: str, message: Descriptor) -> list[FieldDescriptor]:
    found: list[FieldDescriptor] = []
    at: Descriptor | None = message
    for name in path.split(".", _DEEPEST):
        field = None if at is None else by_any_name(at).get(name)
        if field is None:
            raise rpc.InvalidArgument(
                f"{path[:_SHOWN]!r} is no field of {message.full_name}", field="$fields"
            )
        found.append(field)
        kind = field.message_type
        closed = kind is None or is_map(field) or kind.full_name in SPECIAL_JSON
        at = None if closed else kind
    return found


def _kept(value: Any, tree: dict[str, Any]) -> Any:
    if not tree:
        return value
    if isinstance(value, list):
        return [_kept(each, tree) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: _kept(inner, tree[name]) for name, inner in value.items() if name in tree}
