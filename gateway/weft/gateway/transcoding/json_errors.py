"""Says where a JSON body does not fit its message. Only runs for bodies that a codec has refused.

The codec itself decides: the body is taken apart field by field, and each part is offered to it again.
So this never disagrees with the codec, and needs none of its rules.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft import rpc
from weft.gateway.transcoding import fields
from weft.gateway.transcoding.json_depth import MAX_DEPTH, too_deep
from weft.gateway.transcoding.values import scalar_encoder

Accepts = Callable[[Descriptor, bytes], bool]
"""Whether a codec takes a document as such a message."""

E = TypeVar("E")
_MOST = 10  # violations told at once
_SHOWN = 80  # characters of a name repeated in a violation
_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}


def explain(
    body: bytes, message: Descriptor, accepts: Accepts, failed: Exception
) -> rpc.InvalidArgument:
    """The error that names what is wrong with a body, by field path or by line and column."""
    if too_deep(body):
        return rpc.InvalidArgument(f"the body is nested deeper than {MAX_DEPTH} levels")
    try:
        text = body.decode()
    except UnicodeDecodeError as bad:
        return rpc.InvalidArgument(f"the body is not UTF-8 at {_place(body, bad.start)}")
    try:
        value = json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as bad:
        return _malformed(bad)
    walk = _Walk(accepts)
    walk.special(message, value) if message.full_name in fields.SPECIAL_JSON else walk.message(
        message, value, ""
    )
    if walk.found:
        path, problem = walk.found[0]
        more = f" (and {len(walk.found) - 1} more)" if len(walk.found) > 1 else ""
        return rpc.InvalidArgument(
            f"{path or 'the body'}: {problem}{more}", violations=[v for v in walk.found if v[0]]
        )
    if isinstance(failed, json.JSONDecodeError):
        return _malformed(failed)
    return rpc.InvalidArgument(f"the body does not fit {message.full_name}")


class _Walk:
    def __init__(self, accepts: Accepts) -> None:
        self.accepts = accepts
        self.found: list[tuple[str, str]] = []

    def add(self, path: str, problem: str) -> None:
        if len(self.found) < _MOST:
            self.found.append((path, problem))

    def special(self, message: Descriptor, value: Any) -> None:
        expects = fields.SPECIAL_JSON[message.full_name]
        self.add("", f"expects {expects}, got {_kind(value)}")

    def message(self, message: Descriptor, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            self.add(path, f"expects an object ({message.full_name}), got {_kind(value)}")
            return
        names = fields.by_any_name(message)
        known: list[tuple[str, Any]] = []
        for name, item in value.items():
            if name in names:
                known.append((name, item))
            elif len(self.found) < _MOST:
                self.add(_join(path, name[:_SHOWN]), _unknown(message, name, names))
        for name, item in self.misfits(message, known, dict):
            self.field(message, names[name], name, item, _join(path, name))

    def field(
        self, message: Descriptor, field: FieldDescriptor, name: str, value: Any, path: str
    ) -> None:
        if fields.is_map(field):
            self.map(message, field, name, value, path)
        elif not field.is_repeated:
            self.leaf(field, value, path)
        elif isinstance(value, list):
            pairs = list(enumerate(value))
            for at, item in self.misfits(
                message, pairs, lambda part: {name: [v for _, v in part]}, some=True
            ):
                self.leaf(field, item, f"{path}[{at}]")
        else:
            self.add(path, f"expects an array, got {_kind(value)}")

    def map(
        self, message: Descriptor, field: FieldDescriptor, name: str, value: Any, path: str
    ) -> None:
        entry = field.message_type
        assert entry is not None
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        if not isinstance(value, dict):
            self.add(path, f"expects an object, got {_kind(value)}")
            return
        for key, item in self.misfits(
            message, list(value.items()), lambda some: {name: dict(some)}
        ):
            at = f'{path}["{key[:_SHOWN]}"]'
            try:
                scalar_encoder(key_field)(key)
            except ValueError as failed:
                self.add(at, f"the key {failed}")
            else:
                self.leaf(value_field, item, at)

    def leaf(self, field: FieldDescriptor, value: Any, path: str) -> None:
        nested = field.message_type
        if nested is not None and nested.full_name not in fields.SPECIAL_JSON:
            self.message(nested, value, path)
        elif isinstance(value, str) and any("\ud800" <= each <= "\udfff" for each in value):
            self.add(path, "holds half of a surrogate pair")
        else:
            self.add(path, f"expects {fields.expectation(field)}, got {_kind(value)}")

    def misfits(
        self,
        message: Descriptor,
        items: list[E],
        build: Callable[[Sequence[E]], Any],
        *,
        some: bool = False,
    ) -> Iterator[E]:
        """Those of the items that the codec refuses, by halves, since most are fine.

        Args:
            message: What the items are parts of.
            items: The items.
            build: Puts items together again.
            some: It is known that there are some.
        """
        if not items or len(self.found) >= _MOST:
            return
        if len(items) == 1 or not some:
            if self.takes(message, build(items)):
                return
            if len(items) == 1:
                yield items[0]
                return
        middle = len(items) // 2
        left_is_fine = True
        for each in self.misfits(message, items[:middle], build):
            left_is_fine = False
            yield each
        yield from self.misfits(message, items[middle:], build, some=left_is_fine)

    def takes(self, message: Descriptor, value: Any) -> bool:
        return self.accepts(message, json.dumps(value).encode())


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 40 else float(text)  # noqa: PLR2004  past any integer field


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "a number without bound"
    return _KINDS.get(type(value), "a number")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _unknown(message: Descriptor, name: str, names: dict[str, FieldDescriptor]) -> str:
    near = difflib.get_close_matches(name[:_SHOWN], names, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f"{message.full_name} has no such field{hint}"


def _malformed(bad: json.JSONDecodeError) -> rpc.InvalidArgument:
    return rpc.InvalidArgument(
        f"malformed JSON at line {bad.lineno}, column {bad.colno}: {bad.msg}"
    )


def _place(body: bytes, at: int) -> str:
    line = body.count(b"\n", 0, at) + 1
    column = at - body.rfind(b"\n", 0, at)
    return f"line {line}, column {column}"
