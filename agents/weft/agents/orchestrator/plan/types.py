"""Messages of types that are known only from the descriptors of agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from weft.v1 import debater_pb2, options_pb2, orchestrator_pb2, workflow_pb2
from weft.v1.workflow_pb2 import TypedMessage

# Files that are this process's own whatever agents registered: they are at least as new as what the engine is made for.
_OWN: Final = (
    any_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
    annotations_pb2,
    field_behavior_pb2,
    status_pb2,
    options_pb2,
    workflow_pb2,
    orchestrator_pb2,
    debater_pb2,
)
_LIST: Final = "list("
_LOW: Final = 0x7F  # the bits of a byte of a varint that count
_ITEM: Final = b"\x0a"  # field 1, length-delimited

Given = Message | Sequence[Message]
"""What a node gives: a message, or those of a list."""


class MessageTypes:
    """The message types of several descriptor sets, in one pool.

    Where two sets carry different versions of a file the larger one counts: fields are added to contracts, not taken away,
    and an agent with the smaller one passes over what it does not know.

    Attributes:
        pool: the files.
        problems: files that fit no other, and why; what they define is not known.
    """

    def __init__(self, sets: Iterable[bytes] = ()) -> None:
        """Reads serialized google.protobuf.FileDescriptorSet messages, in an order that stays the same."""
        self.pool = descriptor_pool.DescriptorPool()
        self.problems: list[str] = []
        self._own: set[str] = set()
        for module in _OWN:
            self._add_own(module.DESCRIPTOR)
        self._add(_newest(sets, self._own, self.problems))
        self._classes: dict[str, type[Message] | None] = {}

    def _add_own(self, file: FileDescriptor) -> None:
        if file.name in self._own:
            return
        for each in file.dependencies:
            self._add_own(each)
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        self.pool.Add(copy)
        self._own.add(file.name)

    def _add(self, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
        added = set(self._own)
        waiting = [(name, False) for name in reversed(files)]
        while waiting:
            name, ready = waiting.pop()
            if name in added or name not in files:
                continue
            if not ready:
                waiting.append((name, True))
                waiting.extend(
                    (each, False)
                    for each in files[name].dependency
                    if each not in added and (each, True) not in waiting
                )
                continue
            added.add(name)
            try:
                self.pool.Add(files[name])
            except TypeError as failed:
                self.problems.append(f"{name}: {failed}")

    def find(self, name: str) -> Descriptor | None:
        """The descriptor of a message type; None: there is none of that name."""
        try:
            return self.pool.FindMessageTypeByName(name)
        except KeyError:
            return None

    def message_class(self, name: str) -> type[Message] | None:
        """The class of a message type, the generated one for types of Weft itself; None: there is none of that name."""
        if name not in self._classes:
            found = self.find(name)
            if found is not None and found.file.name in self._own:
                found = descriptor_pool.Default().FindMessageTypeByName(name)
            self._classes[name] = message_factory.GetMessageClass(found) if found else None
        return self._classes[name]

    def new(self, name: str) -> Message:
        """An empty message.

        Raises:
            LookupError: there is no such type.
        """
        made = self.message_class(name)
        if made is None:
            raise LookupError(f"there is no message type {name!r}")
        return made()

    def unpack(self, packed: TypedMessage) -> Given:
        """What a TypedMessage holds.

        Raises:
            LookupError: its type is not known.
            ValueError: it is not of its type.
        """
        name = packed.type
        if name.startswith(_LIST):
            return self._unpack_list(packed, name[len(_LIST) : -1])
        message = self.new(name)
        try:
            if packed.WhichOneof("form") == "json":
                json = json_format.MessageToDict(packed.json)
                json_format.ParseDict(json, message, descriptor_pool=self.pool)
            else:
                message.ParseFromString(packed.binary)
        except (DecodeError, json_format.ParseError) as failed:
            raise ValueError(f"this is no {name}: {failed}") from None
        return message

    def _unpack_list(self, packed: TypedMessage, name: str) -> list[Message]:
        if packed.WhichOneof("form") == "json":
            values = packed.json.list_value.values
            one = (self.unpack(TypedMessage(type=name, json=value)) for value in values)
        else:
            one = (self.unpack(TypedMessage(type=name, binary=b)) for b in unframed(packed.binary))
        return [each for each in one if isinstance(each, Message)]


def list_of(name: str) -> str:
    """Name of the type of lists of a message type."""
    return f"{_LIST}{name})"


def item_of(name: str) -> str | None:
    """Message type of the elements of a list type; None: it is no list."""
    return name[len(_LIST) : -1] if name.startswith(_LIST) else None


def pack(given: Given, output_type: str) -> TypedMessage:
    """What a node gave, serialized. A list is like a message whose field 1 holds its elements."""
    if isinstance(given, Message):
        return TypedMessage(type=output_type, binary=given.SerializeToString())
    binary = framed(each.SerializeToString() for each in given)
    return TypedMessage(type=output_type, binary=binary)


def framed(items: Iterable[bytes]) -> bytes:
    """Several byte strings as the values of field 1 of a message."""
    return b"".join(part for body in items for part in (_ITEM, _varint(len(body)), body))


def unframed(binary: bytes) -> Iterator[bytes]:
    """What `framed` put together. Raises ValueError where it did not."""
    at = 0
    while at < len(binary):
        if binary[at : at + 1] != _ITEM:
            raise ValueError("this is no list of messages")
        size = shift = 0
        more = True
        while more:
            at += 1
            if at == len(binary):
                raise ValueError("this is no list of messages")
            size |= (binary[at] & _LOW) << shift
            shift += 7
            more = binary[at] > _LOW
        yield binary[at + 1 : at + 1 + size]
        at += 1 + size


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > _LOW:
        written.append(number & _LOW | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _newest(
    sets: Iterable[bytes], own: set[str], problems: list[str]
) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    sizes: dict[str, int] = {}
    for serialized in sets:
        try:
            parsed = descriptor_pb2.FileDescriptorSet.FromString(serialized)
        except DecodeError:
            problems.append("a descriptor set is damaged")
            continue
        for file in parsed.file:
            if file.name in own:
                continue
            file.ClearField("source_code_info")
            size = file.ByteSize()
            if size > sizes.get(file.name, -1):
                files[file.name], sizes[file.name] = file, size
    return files
