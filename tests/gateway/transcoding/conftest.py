from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from google.api import http_pb2
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

from weft.gateway.transcoding.binding import Binding, compile_rule
from weft.gateway.transcoding.schema import Schema

F = descriptor_pb2.FieldDescriptorProto
WELL_KNOWN = (
    *(any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2),
)
SCALARS = {
    "double": F.TYPE_DOUBLE,
    "float": F.TYPE_FLOAT,
    "int64": F.TYPE_INT64,
    "uint64": F.TYPE_UINT64,
    "int32": F.TYPE_INT32,
    "fixed64": F.TYPE_FIXED64,
    "fixed32": F.TYPE_FIXED32,
    "bool": F.TYPE_BOOL,
    "string": F.TYPE_STRING,
    "bytes": F.TYPE_BYTES,
    "uint32": F.TYPE_UINT32,
    "sfixed32": F.TYPE_SFIXED32,
    "sfixed64": F.TYPE_SFIXED64,
    "sint32": F.TYPE_SINT32,
    "sint64": F.TYPE_SINT64,
}


def add_field(
    message: descriptor_pb2.DescriptorProto,
    declaration: str,
    number: int,
    *,
    package: str = "kinds",
    oneof: str = "",
) -> None:
    """Adds a field as a .proto would write it: "repeated int32 some_name", "map<string, Kind> x"."""
    left, name = declaration.rsplit(" ", 1)
    field = message.field.add(name=name, number=number, label=F.LABEL_OPTIONAL)
    if left.startswith("map<"):
        key, value = left[4:-1].split(", ")
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        add_field(entry, f"{key} key", 1, package=package)
        add_field(entry, f"{value} value", 2, package=package)
        field.label, field.type = F.LABEL_REPEATED, F.TYPE_MESSAGE
        field.type_name = f".{package}.{message.name}.{entry.name}"
        return
    label, _, kind = left.rpartition(" ")
    if label == "repeated":
        field.label = F.LABEL_REPEATED
    if label == "optional":
        field.proto3_optional = True
        oneof = f"_{name}"
    if kind in SCALARS:
        field.type = SCALARS[kind]
    elif kind.endswith("Enum") or kind == "EnumValue":
        field.type, field.type_name = F.TYPE_ENUM, f".{package}.{kind}"
    else:
        field.type = F.TYPE_MESSAGE
        field.type_name = f".{kind}" if "." in kind else f".{package}.{kind}"
    if oneof:
        names = [each.name for each in message.oneof_decl]
        if oneof not in names:
            message.oneof_decl.add(name=oneof)
            names.append(oneof)
        field.oneof_index = names.index(oneof)


def well_known_files() -> list[descriptor_pb2.FileDescriptorProto]:
    files = []
    for module in WELL_KNOWN:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    return files


def kinds_file() -> descriptor_pb2.FileDescriptorProto:
    """A message with a field of every kind, one of each number."""
    file = descriptor_pb2.FileDescriptorProto(name="kinds.proto", package="kinds", syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in WELL_KNOWN)
    enum = file.enum_type.add(name="SomeEnum")
    for number, name in ((0, "SOME_ENUM_UNSPECIFIED"), (1, "RED"), (2, "GREEN"), (-1, "MINUS")):
        enum.value.add(name=name, number=number)
    message = file.message_type.add(name="Kinds")
    wrappers = (
        *("DoubleValue", "FloatValue", "Int64Value", "UInt64Value", "Int32Value"),
        *("UInt32Value", "BoolValue", "StringValue", "BytesValue"),
    )
    others = ("Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue", "Empty")
    declarations = [
        *(f"{kind} {kind}_one" for kind in SCALARS),
        *(f"repeated {kind} {kind}_many" for kind in SCALARS),
        *(f"optional {kind} {kind}_maybe" for kind in SCALARS),
        *(f"map<string, {kind}> {kind}_by_name" for kind in SCALARS),
        *(f"map<{kind}, string> name_by_{kind}" for kind in ("int32", "uint64", "bool", "sint64")),
        *(f"google.protobuf.{kind} {kind.lower()}" for kind in (*wrappers, *others)),
        *(f"repeated google.protobuf.{kind} {kind.lower()}_list" for kind in (*wrappers, *others)),
        *("SomeEnum color", "repeated SomeEnum colors", "optional SomeEnum maybe_color"),
        *("Kinds child", "repeated Kinds children", "map<string, Kinds> child_by_name"),
        *("map<string, SomeEnum> color_by_name", "google.protobuf.Any any"),
    ]
    for number, declaration in enumerate(declarations, 1):
        add_field(message, declaration, number)
    for number, declaration in enumerate(
        ("string either", "Kinds or_child", "int32 or_number"), 900
    ):
        add_field(message, declaration, number, oneof="choice")
    synthetic = [each for each in message.oneof_decl if each.name.startswith("_")]
    assert message.oneof_decl[-1].name == "choice"
    assert len(synthetic) == len(message.oneof_decl) - 1
    # Real oneofs come first in a descriptor.
    del message.oneof_decl[:]
    message.oneof_decl.add(name="choice")
    message.oneof_decl.extend(synthetic)
    for field in message.field:
        if field.HasField("oneof_index"):
            real = not field.proto3_optional
            field.oneof_index = 0 if real else field.oneof_index + 1
    return file


def serialize(*files: descriptor_pb2.FileDescriptorProto) -> bytes:
    return descriptor_pb2.FileDescriptorSet(file=[*well_known_files(), *files]).SerializeToString()


@pytest.fixture(scope="session")
def protos() -> SimpleNamespace:
    """What tests make descriptors of their own with."""
    return SimpleNamespace(add_field=add_field, serialize=serialize)


@pytest.fixture(scope="session")
def kinds_set() -> bytes:
    """A descriptor set with the message kinds.Kinds."""
    return serialize(kinds_file())


@pytest.fixture(scope="session")
def kinds(kinds_set: bytes) -> Schema:
    return Schema(kinds_set, native=True)


@pytest.fixture(scope="session")
def slow_kinds(kinds_set: bytes) -> Schema:
    """The same through json_format."""
    return Schema(kinds_set, native=False)


@pytest.fixture(scope="session")
def echo() -> Schema:
    """The schema of a service whose methods take and return kinds.Kinds."""
    file = kinds_file()
    service = file.service.add(name="Echo")
    for name in ("Call", "Collect"):
        service.method.add(
            name=name,
            input_type=".kinds.Kinds",
            output_type=".kinds.Kinds",
            client_streaming=name == "Collect",
        )
    return Schema(serialize(file), native=True)


@pytest.fixture
def bind(echo: Schema) -> Callable[..., list[Binding]]:
    """Compiles an HTTP rule for a method of that service."""
    methods = next(iter(echo.services())).methods_by_name

    def make(*, method: str = "Call", **rule: object) -> list[Binding]:
        return compile_rule(methods[method], http_pb2.HttpRule(**rule), echo)

    return make
