"""Fields of messages by their names, as masks have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf.message import Message

_MOST = 200


def few(mask: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The violation of a mask that names too much: it is kept on record as it is."""
    if len(mask) > _MOST:
        yield "update_paths", f"takes at most {_MOST} paths"


def take(own: Message, said: Message, name: str) -> None:
    """Sets a field as another message of the same type has it; cleared where it is not set there."""
    only = type(said)()
    only.CopyFrom(said)
    for field in said.DESCRIPTOR.fields:
        if field.name != name:
            only.ClearField(field.name)
    own.ClearField(name)
    own.MergeFrom(only)
