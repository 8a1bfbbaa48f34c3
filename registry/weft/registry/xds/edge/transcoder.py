"""Envoy's transcoder for the services of an agent: the contract as small as it can be, for each route has a copy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from google.api import annotations_pb2
from google.protobuf import any_pb2, descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2

from weft.registry.xds.edge import bindings
from weft.registry.xds.resources import packed
from weft.xds.v1 import edge_pb2 as pb

FILTER = "transcoder"
_TYPE = (
    "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
)
_MAX_ANSWER = 64 * 1024 * 1024  # bytes; only what is no stream is held whole

File = descriptor_pb2.FileDescriptorProto


def none() -> any_pb2.Any:
    """The filter as the listener has it: off but where a route has contracts for it."""
    return packed(_TYPE, pb.Transcoder(proto_descriptor_bin=b""))


class Contract(NamedTuple):
    """What a transcoder has to know.

    Attributes:
        descriptor_set: a google.protobuf.FileDescriptorSet.
        bindings: path of a method, HTTP method and path template of what it serves.
    """

    descriptor_set: bytes
    bindings: frozenset[tuple[str, str, str]]


def transcoder(contract: Contract, services: Collection[str], max_body: int) -> any_pb2.Any:
    """The filter of a route.

    Args:
        contract: of the services.
        services: their full names.
        max_body: largest body of a request, in bytes.
    """
    made = pb.Transcoder(
        proto_descriptor_bin=contract.descriptor_set,
        services=sorted(services),
        convert_grpc_status=True,
        url_unescape_spec=pb.URL_UNESCAPE_ALL_CHARACTERS_EXCEPT_SLASH,
        query_param_unescape_plus=True,
        request_validation_options=pb.RequestValidation(
            reject_unknown_method=True,
            reject_unknown_query_parameters=True,
            reject_binding_body_field_collisions=True,
        ),
    )
    made.max_request_body_size.value = max_body
    made.max_response_body_size.value = _MAX_ANSWER
    return packed(_TYPE, made)


def pruned(descriptor_set: bytes, services: Collection[str]) -> Contract:
    """A descriptor set without what a transcoder has no use for: options other than google.api.http, and files left unused.

    The details that errors of agents have are added, which Envoy could not write as JSON otherwise.
    """
    files = {
        file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    }
    wanted = {name for name, file in files.items() if _serves(file, services)}
    for file in _with_imports(error_details_pb2.DESCRIPTOR):
        files.setdefault(file.name, file)
    wanted.add(error_details_pb2.DESCRIPTOR.name)
    known = bindings.types(files.values())
    served: set[tuple[str, str, str]] = set()
    homes = {name: file.name for file in files.values() for name in _types(file)}
    kept = descriptor_pb2.FileDescriptorSet()
    done: set[str] = set()

    def keep(name: str) -> None:
        if name in done:
            return
        done.add(name)
        small = _small(files[name])
        served.update(_keep_services(small, files[name], services, known))
        needed = {homes[each] for each in _used(small)} - {name}
        for each in sorted(needed):
            keep(each)
        small.dependency.extend(sorted(needed))
        kept.file.append(small)

    for name in sorted(wanted):
        keep(name)
    return Contract(kept.SerializeToString(deterministic=True), frozenset(served))


def _serves(file: File, services: Collection[str]) -> bool:
    return any(f"{file.package}.{each.name}".lstrip(".") in services for each in file.service)


def _small(file: File) -> File:
    small = File()
    small.CopyFrom(file)
    for field in ("dependency", "public_dependency", "weak_dependency", "source_code_info"):
        small.ClearField(field)
    small.ClearField("extension")
    features = file.options.features if file.options.HasField("features") else None
    small.ClearField("options")
    if features is not None:
        small.options.features.CopyFrom(features)
    for message in small.message_type:
        _without_extensions(message)
    return small


def _keep_services(
    small: File, file: File, services: Collection[str], known: bindings.Types
) -> Iterator[tuple[str, str, str]]:
    """Leaves these services in a file, and of their options the routes that are served; yields those."""
    del small.service[:]
    for service in file.service:
        full_name = f"{file.package}.{service.name}".lstrip(".")
        if full_name not in services:
            continue
        copy = small.service.add(name=service.name)
        for method in service.method:
            plain = copy.method.add()
            plain.CopyFrom(method)
            plain.ClearField("options")
            rule = method.options.Extensions[annotations_pb2.http]
            served = list(bindings.taken(rule, method, known))
            if not served:
                continue
            kept = plain.options.Extensions[annotations_pb2.http]
            kept.CopyFrom(served[0])
            kept.additional_bindings.extend(served[1:])
            for each in served:
                yield (f"/{full_name}/{method.name}", *bindings.route(each))


def _without_extensions(message: descriptor_pb2.DescriptorProto) -> None:
    message.ClearField("extension")
    for nested in message.nested_type:
        _without_extensions(nested)


def _used(file: File) -> Iterator[str]:
    for service in file.service:
        for method in service.method:
            yield method.input_type.lstrip(".")
            yield method.output_type.lstrip(".")
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        pending.extend(message.nested_type)
        for field in message.field:
            if field.type_name:
                yield field.type_name.lstrip(".")


def _types(file: File) -> Iterator[str]:
    yield from _named(file.package, file.message_type, file.enum_type)


def _named(
    scope: str,
    messages: Iterable[descriptor_pb2.DescriptorProto],
    enums: Iterable[descriptor_pb2.EnumDescriptorProto],
) -> Iterator[str]:
    for enum in enums:
        yield f"{scope}.{enum.name}".lstrip(".")
    for message in messages:
        name = f"{scope}.{message.name}".lstrip(".")
        yield name
        yield from _named(name, message.nested_type, message.enum_type)


def _with_imports(file: FileDescriptor) -> Iterator[File]:
    for each in file.dependencies:
        yield from _with_imports(each)
    made = File()
    file.CopyToProto(made)
    yield made
