"""Parameters of operations, as JSON-RPC has them and as HTTP+JSON makes them: read and checked."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeVar

from weft import rpc
from weft.gateway.doors.a2a.protocol import Json

T = TypeVar("T", str, int, bool, dict[str, Any], list[Any])

_SHAPES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
_MOST = 2_000  # characters of an id
_AFTER_UNDERSCORE = re.compile("_([a-z0-9])")


def renamed(values: Json) -> Json:
    """An object whose members have the names that JSON gives them, not those of the contract."""
    if not any("_" in name for name in values):
        return values
    return {_camel(name): value for name, value in values.items()}


def _camel(name: str) -> str:
    # What stands under a URI is an extension's, not the contract's.
    return name if ":" in name else _AFTER_UNDERSCORE.sub(lambda found: found[1].upper(), name)


class Params:
    """The members of an object; null is as good as absent, task_id is taken for taskId (ProtoJSON)."""

    __slots__ = ("_path", "_values")

    def __init__(self, values: Json, path: str = "") -> None:
        self._values = renamed(values)
        self._path = path

    def __bool__(self) -> bool:
        return bool(self._values)

    def path(self, name: str) -> str:
        """How a member is named in errors."""
        return f"{self._path}{name}"

    def raw(self, name: str) -> Any:
        """A member as it is."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """A string; empty: absent."""
        value = self._of(name, str) or ""
        if len(value) > _MOST or "\0" in value:
            raise rpc.InvalidArgument(f"must be at most {_MOST} characters", field=self.path(name))
        return value

    def needed(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if not value:
            raise rpc.InvalidArgument("is required", field=self.path(name))
        return value

    def number(self, name: str, least: int, most: int) -> int | None:
        """An integer of a range; None: absent."""
        value = self._values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise rpc.InvalidArgument(
                f"must be an integer from {least} to {most}", field=self.path(name)
            )
        return value

    def flag(self, name: str) -> bool:
        """A boolean; absent is false."""
        return self._of(name, bool) or False

    def time(self, name: str) -> datetime | None:
        """A point in time; None: absent."""
        text = self.text(name)
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            found = None
        if found is None or found.tzinfo is None:
            raise rpc.InvalidArgument("must be a time of RFC 3339", field=self.path(name))
        return found.astimezone(UTC)

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        value = self._of(name, list) or []
        if not all(isinstance(each, str) for each in value):
            raise rpc.InvalidArgument("must be a list of strings", field=self.path(name))
        return value

    def inner(self, name: str) -> Params:
        """An object; absent is empty."""
        return Params(self._of(name, dict) or {}, f"{self.path(name)}.")

    def _of(self, name: str, kind: type[T]) -> T | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, kind):
            raise rpc.InvalidArgument(f"must be {_SHAPES[kind]}", field=self.path(name))
        return value
