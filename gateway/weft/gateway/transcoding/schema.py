"""The message types of one descriptor set.

Each set has a pool of its own: agents may carry different versions of the same file, and both must work
at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.message import DecodeError
from protobuf import Registry
from protobuf.wkt import FileDescriptorSet

from weft import rpc
from weft.gateway.transcoding.json_codec import (
    MISFIT,
    Codec,
    GoogleCodec,
    JsonOptions,
    NativeCodec,
    native_available,
)
from weft.gateway.transcoding.json_errors import explain
from weft.v1 import options_pb2

# Imported so that their extensions are known when options are parsed.
_EXTENSIONS = (annotations_pb2, field_behavior_pb2, options_pb2)
_AFTER_UNDERSCORES = re.compile("_+(.?)")  # as protoc makes lowerCamelCase of a field name


class SchemaError(ValueError):
    """A descriptor set that cannot be used."""


class Schema:
    """A descriptor set, its types and their codecs.

    Attributes:
        digest: SHA-256 of the set.
        options: how replies are written.
        pool: its files.
    """

    def __init__(
        self,
        serialized: bytes,
        *,
        options: JsonOptions | None = None,
        native: bool | None = None,
    ) -> None:
        """Reads a serialized google.protobuf.FileDescriptorSet.

        Args:
            serialized: The set. Files may come in any order; imports that this process has itself,
                such as google/protobuf/*.proto, may be left out.
            options: How replies are written.
            native: Which codec to use; None: the native one where it runs.

        Raises:
            SchemaError: the set is damaged or incomplete.
        """
        self.digest = hashlib.sha256(serialized).hexdigest()
        self.options = options or JsonOptions()
        self._native = native_available() if native is None else native
        self._files = _complete(serialized)
        self.pool = descriptor_pool.DescriptorPool()
        try:
            for file in self._files.file:
                self.pool.Add(file)
        except TypeError as failed:
            raise SchemaError(f"the descriptor set is not valid: {failed}") from None
        self._registry: Registry | None = None
        self._codecs: dict[tuple[str, JsonOptions], Codec] = {}

    def services(self) -> Iterator[ServiceDescriptor]:
        """All services of the set."""
        for file in self._files.file:
            yield from self.pool.FindFileByName(file.name).services_by_name.values()

    def message(self, full_name: str) -> Descriptor:
        """A message type by its full name.

        Raises:
            LookupError: the set has none of that name.
        """
        return self.pool.FindMessageTypeByName(full_name)

    def codec(self, full_name: str, options: JsonOptions | None = None) -> Codec:
        """The codec of a message type; `options` other than the schema's own where given.

        Raises:
            LookupError: the set has none of that name.
        """
        key = (full_name, options or self.options)
        codec = self._codecs.get(key)
        if codec is None:
            codec = self._codecs[key] = self._make_codec(self.message(full_name), key[1])
        return codec

    def _make_codec(self, message: Descriptor, options: JsonOptions) -> Codec:
        def say(body: bytes, failed: Exception) -> rpc.InvalidArgument:
            return explain(body, message, self._accepts, failed)

        if not self._native:
            return GoogleCodec(message, say, pool=self.pool, options=options)
        if self._registry is None:
            complete = FileDescriptorSet.from_binary(self._files.SerializeToString())
            self._registry = complete.to_registry()
        native = self._registry.message(message.full_name)
        if native is None:
            raise LookupError(message.full_name)
        # Resolving google.protobuf.Any costs each message a little: only where one can occur.
        registry = self._registry if _holds(message, "google.protobuf.Any") else None
        return NativeCodec(native, say, registry=registry, options=options)

    def _accepts(self, message: Descriptor, body: bytes) -> bool:
        try:
            self.codec(message.full_name).parse(body)
        except MISFIT:
            return False
        return True


def _complete(serialized: bytes) -> descriptor_pb2.FileDescriptorSet:
    """The set with its files after their imports, and with every JSON name written out.

    A set that a Python process made from its own pool has no JSON names; protoc writes them.
    """
    try:
        given = descriptor_pb2.FileDescriptorSet.FromString(serialized)
    except DecodeError:
        raise SchemaError("the descriptor set is damaged") from None
    files = {file.name: file for file in given.file}
    ordered: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    waiting = [(name, False) for name in reversed(files)]
    while waiting:
        name, ready = waiting.pop()
        if name in ordered:
            continue
        file = files.get(name) or _own_file(name)
        if ready:
            ordered[name] = file
            continue
        waiting.append((name, True))
        waiting.extend((each, False) for each in file.dependency if (each, True) not in waiting)
    for file in ordered.values():
        for message in file.message_type:
            _write_json_names(message)
    return descriptor_pb2.FileDescriptorSet(file=ordered.values())


def _own_file(name: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    try:
        descriptor_pool.Default().FindFileByName(name).CopyToProto(file)
    except KeyError:
        raise SchemaError(f"the descriptor set lacks the import {name!r}") from None
    return file


def _write_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        if not field.json_name:
            field.json_name = _AFTER_UNDERSCORES.sub(
                lambda found: found.group(1).upper(), field.name
            )
    for inner in message.nested_type:
        _write_json_names(inner)


def _holds(message: Descriptor, full_name: str) -> bool:
    """Whether a message of that type can occur inside another."""
    seen: set[str] = set()
    waiting = [message]
    while waiting:
        each = waiting.pop()
        if each.full_name in seen:
            continue
        seen.add(each.full_name)
        waiting.extend(field.message_type for field in each.fields if field.message_type)
    return full_name in seen
