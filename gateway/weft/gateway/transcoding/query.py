"""Query parameters to the wire form of a request.

A parameter is a field path with dots, each name as in the .proto or as in JSON. It may name a scalar, a
list of scalars (the key is repeated), or a message whose JSON is one value, such as a Timestamp; not a
map and not a list of messages (http.proto). Refused are: an unknown name, a field that the path or the
body binds, a second value for a single field, and two members of one oneof.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from weft import rpc
from weft.gateway.transcoding import fields, percent, values, wire

Numbers = tuple[int, ...]
_MOST_NAMES = 32  # in one field path; each is a level of nesting
_SHOWN = 100  # characters of a parameter's name repeated in an error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """A field that a parameter can fill."""

    parents: tuple[FieldDescriptor, ...]
    numbers: Numbers
    repeated: bool
    oneofs: tuple[tuple[Numbers, str, int], ...]
    """Each oneof on the way: where it is, its name, and the number of the member."""
    encode: values.Encode


class QueryBinder:
    """Reads the query of one route."""

    def __init__(
        self,
        message: Descriptor,
        *,
        path: Iterable[tuple[FieldDescriptor, ...]],
        body: tuple[FieldDescriptor, ...] | None,
        parser: Callable[[Descriptor], Callable[[bytes], bytes]],
    ) -> None:
        """Prepares for a message.

        Args:
            message: The request's type.
            path: The fields that the path binds.
            body: The field that the body fills; (): all of them; None: there is no body.
            parser: The JSON parser of a message type.
        """
        self._message = message
        self._parser = parser
        bound = [*path] if body is None else [*path, body]
        self._path = {_numbers(each) for each in path}
        self._body = None if body is None else _numbers(body)
        self._oneofs = {
            (where, oneof): number for each in bound for where, oneof, number in _oneofs(each)
        }
        self._leaves: dict[str, _Leaf] = {}  # of the first level only, so that it stays small

    def to_wire(self, query: str) -> bytes:
        """The fields that a query sets.

        Raises:
            rpc.InvalidArgument: names the parameter.
        """
        parts: list[bytes] = []
        seen: set[Numbers] = set()
        oneofs = dict(self._oneofs)
        try:
            pairs = list(percent.form_pairs(query))
        except percent.FormError as failed:
            raise _refused(failed.name, str(failed)) from None
        for name, text in pairs:
            leaf = self._leaf(name)
            if not leaf.repeated and leaf.numbers in seen:
                raise _refused(name, "is given twice")
            seen.add(leaf.numbers)
            for where, oneof, number in leaf.oneofs:
                if oneofs.setdefault((where, oneof), number) != number:
                    raise _refused(name, f"another member of the oneof {oneof!r} is set")
            try:
                payload = leaf.encode(text)
            except ValueError as failed:
                raise _refused(name, str(failed)) from None
            parts.append(wire.nested(leaf.parents, payload))
        return b"".join(parts)

    def _leaf(self, name: str) -> _Leaf:
        leaf = self._leaves.get(name)
        if leaf is not None:
            return leaf
        names = name.split(".")
        if len(names) > _MOST_NAMES:
            raise _refused(name, f"has more than {_MOST_NAMES} names")
        try:
            path = fields.resolve(self._message, names)
        except LookupError as failed:
            raise _refused(name, f"is not a parameter here: {failed.args[0]}") from None
        leaf = self._make_leaf(name, path)
        if len(names) == 1:
            self._leaves[name] = leaf
        return leaf

    def _make_leaf(self, name: str, path: tuple[FieldDescriptor, ...]) -> _Leaf:
        numbers = _numbers(path)
        if numbers in self._path:
            raise _refused(name, "is bound by the path and may not be given in the query too")
        if self._body is not None and numbers[: len(self._body)] == self._body:
            raise _refused(name, "belongs into the body, not into the query")
        return _Leaf(
            parents=path[:-1],
            numbers=numbers,
            repeated=path[-1].is_repeated,
            oneofs=_oneofs(path),
            encode=self._encoder(name, path[-1]),
        )

    def _encoder(self, name: str, field: FieldDescriptor) -> values.Encode:
        kind = field.message_type
        if kind is None:
            return values.scalar_encoder(field)
        if field.is_repeated or field.type == FieldDescriptor.TYPE_GROUP:
            raise _refused(name, "is a list of messages or a map, which a query cannot hold")
        if not values.has_text_form(kind):
            raise _refused(
                name,
                "is a message; give its fields, such as "
                f"{name[:_SHOWN]}.{next(iter(kind.fields_by_name), 'field')}",
            )
        return values.json_encoder(field, self._parser(kind))


def _numbers(path: tuple[FieldDescriptor, ...]) -> Numbers:
    return tuple(field.number for field in path)


def _oneofs(path: tuple[FieldDescriptor, ...]) -> tuple[tuple[Numbers, str, int], ...]:
    return tuple(
        (_numbers(path[:depth]), field.containing_oneof.name, field.number)
        for depth, field in enumerate(path)
        if field.containing_oneof is not None
    )


def _refused(name: str, problem: str) -> rpc.InvalidArgument:
    shown = name[:_SHOWN]
    return rpc.InvalidArgument(
        f"query parameter {shown!r}: {problem}", violations=[(shown, problem)]
    )
