"""Random messages of any type, from the corners of what their fields can hold."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as F

from weft.agents.filling import kinds

_WORDS = (
    "",
    "a",
    "naïve",
    "日本語",
    "🦆 quack",
    '"quoted"\\',
    "line\nbreak\ttab",
    "\x00",
    "null",
    "{",
)
_DEPTH = 3


def fill(message: Any, rng: random.Random, depth: int = 1) -> Any:
    """Fills a message; types that hold themselves are filled as deep as a schema lets."""
    name = message.DESCRIPTOR.full_name
    if special := _SPECIAL.get(name.removeprefix("google.protobuf.")):
        special(message, rng)
        return message
    for field in kinds.plain_fields(message.DESCRIPTOR):
        if kinds.is_required(field) or rng.random() < (0.15 if _recurs(message, field) else 0.5):
            _fill_field(message, field, rng, depth)
    for oneof in kinds.oneofs(message.DESCRIPTOR):
        if rng.random() < 0.7:
            members = [f for f in oneof.fields if _fits(message, f, depth)]
            _fill_single(message, rng.choice(members), rng, depth)
    return message


def _recurs(message: Any, field: Any) -> bool:
    given = kinds.map_parts(field)[1] if kinds.is_map(field) else field
    return given.message_type is message.DESCRIPTOR


def _fits(message: Any, field: Any, depth: int) -> bool:
    given = kinds.map_parts(field)[1] if kinds.is_map(field) else field
    kind = given.message_type
    if kind is not None and kind.full_name == kinds.ANY:
        return False
    return kind is not message.DESCRIPTOR or depth < _DEPTH


def _fill_field(message: Any, field: Any, rng: random.Random, depth: int) -> None:
    if not _fits(message, field, depth):
        return
    if kinds.is_map(field):
        key, value = kinds.map_parts(field)
        held = getattr(message, field.name)
        for _ in range(_few(rng, value, depth)):
            if value.message_type is not None:
                fill(held[scalar(key, rng)], rng, _below(message, value, depth))
            else:
                held[scalar(key, rng)] = scalar(value, rng, named=True)
    elif field.is_repeated:
        held = getattr(message, field.name)
        for _ in range(_few(rng, field, depth) or kinds.is_required(field)):
            if field.message_type is not None:
                fill(held.add(), rng, _below(message, field, depth))
            else:
                held.append(scalar(field, rng, named=True))
    else:
        _fill_single(message, field, rng, depth)


def _fill_single(message: Any, field: Any, rng: random.Random, depth: int) -> None:
    if field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        fill(inner, rng, _below(message, field, depth))
    else:
        setattr(message, field.name, scalar(field, rng, named=field.has_presence))


def _below(message: Any, field: Any, depth: int) -> int:
    return depth + (field.message_type is message.DESCRIPTOR)


def _few(rng: random.Random, field: Any, depth: int) -> int:
    return rng.randint(0, 1 if depth > 1 else 3)


def scalar(  # noqa: PLR0911 a case each
    field: Any, rng: random.Random, *, named: bool = False
) -> Any:
    bits = {**dict.fromkeys(kinds.BITS_32, 32), **dict.fromkeys(kinds.BITS_64, 64)}.get(field.type)
    if bits:
        unsigned = field.type in {F.TYPE_UINT32, F.TYPE_FIXED32, F.TYPE_UINT64, F.TYPE_FIXED64}
        least = 0 if unsigned else -(1 << bits - 1)
        most = (1 << bits - (not unsigned)) - 1
        return rng.choice([least, most, 0, 1, min(most, 2**53 + 1), rng.randint(least, most)])
    match field.type:
        case F.TYPE_DOUBLE:
            return rng.choice([0.0, -0.0, 1e308, 5e-324, 0.1, -1.5, rng.uniform(-1e9, 1e9)])
        case F.TYPE_FLOAT:
            return rng.choice([0.0, 3.4028234663852886e38, 1e-45, 0.1, rng.uniform(-1e9, 1e9)])
        case F.TYPE_BOOL:
            return rng.random() < 0.5
        case F.TYPE_BYTES:
            return rng.randbytes(rng.randint(0, 9))
        case F.TYPE_ENUM:
            values = field.enum_type.values
            nothing = kinds.unspecified(field.enum_type)
            return rng.choice([v.number for v in values if not named or v != nothing])
    return rng.choice(_WORDS)


def _timestamp(message: Any, rng: random.Random) -> None:
    message.seconds = rng.choice([0, -62135596800, 253402300799, rng.randint(-(10**10), 10**10)])
    message.nanos = rng.choice([0, 1, 999_999_999, 1_000, 500_000_000])


def _duration(message: Any, rng: random.Random) -> None:
    sign = rng.choice([1, -1])
    message.seconds = sign * rng.choice([0, 1, 315_576_000_000, rng.randint(0, 10**6)])
    message.nanos = sign * rng.choice([0, 1, 999_999_999])


def _mask(message: Any, rng: random.Random) -> None:
    message.paths.extend(rng.sample(["a", "b_c", "d.e_f"], rng.randint(0, 3)))


def _json(rng: random.Random, depth: int = 0) -> Any:
    kinds_ = [None, True, 0, -1.5, 1e300, rng.choice(_WORDS)]
    if depth < 2:
        kinds_ += [
            [_json(rng, depth + 1) for _ in range(rng.randint(0, 3))],
            {rng.choice(_WORDS): _json(rng, depth + 1) for _ in range(rng.randint(0, 3))},
        ]
    return rng.choice(kinds_)


def _struct(message: Any, rng: random.Random) -> None:
    message.update({rng.choice(_WORDS): _json(rng) for _ in range(rng.randint(0, 3))})


def _list(message: Any, rng: random.Random) -> None:
    message.extend([_json(rng) for _ in range(rng.randint(0, 3))])


def _value(message: Any, rng: random.Random) -> None:
    from google.protobuf import struct_pb2

    holder = struct_pb2.ListValue()
    holder.extend([_json(rng)])
    message.CopyFrom(holder.values[0])


_SPECIAL = {
    "Timestamp": _timestamp,
    "Duration": _duration,
    "FieldMask": _mask,
    "Struct": _struct,
    "ListValue": _list,
    "Value": _value,
}
