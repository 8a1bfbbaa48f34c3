from __future__ import annotations

import importlib

import pytest
from google.protobuf import descriptor_pb2

from weft.gateway.transcoding.catalog import Catalog, Contract

AGENTS = ("supervisor", "triage", "research", "solution", "quality", "escalation")


@pytest.fixture(scope="session")
def fleet() -> Catalog:
    """The catalog of the support fleet."""
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(file) -> None:
        for dependency in file.dependencies:
            add(dependency)
        if file.name not in found:
            found[file.name] = descriptor_pb2.FileDescriptorProto()
            file.CopyToProto(found[file.name])

    for name in AGENTS:
        add(importlib.import_module(f"weft.support.v1.{name}_pb2").DESCRIPTOR)
    serialized = descriptor_pb2.FileDescriptorSet(file=found.values()).SerializeToString()
    return Catalog(Contract(agent=f"support-{name}", descriptor_set=serialized) for name in AGENTS)
