"""Descriptor sets of generated files."""

from __future__ import annotations

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor


def descriptor_set(file: FileDescriptor) -> bytes:
    """A serialized FileDescriptorSet of a file and all it imports, what is imported first."""
    found: dict[str, FileDescriptor] = {}

    def visit(each: FileDescriptor) -> None:
        for dependency in each.dependencies:
            visit(dependency)
        found[each.name] = each

    visit(file)
    made = descriptor_pb2.FileDescriptorSet()
    for each in found.values():
        each.CopyToProto(made.file.add())
    return made.SerializeToString(deterministic=True)
