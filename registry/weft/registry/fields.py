"""Fields of messages by their names, as masks have them."""

from __future__ import annotations

from google.protobuf.message import Message


def take(own: Message, said: Message, name: str) -> None:
    """Sets a field as another message of the same type has it; cleared where it is not set there."""
    only = type(said)()
    only.CopyFrom(said)
    for field in said.DESCRIPTOR.fields:
        if field.name != name:
            only.ClearField(field.name)
    own.ClearField(name)
    own.MergeFrom(only)
