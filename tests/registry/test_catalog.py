"""What is read from descriptor sets, and which sets are refused."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2

from weft.registry import catalog
from weft.v1 import agent_pb2


def files(world):
    return descriptor_pb2.FileDescriptorSet.FromString(world.descriptor_set)


def test_the_contract_of_an_agent_is_read_from_its_options(world):
    sets = catalog.Catalog()
    sets.add(world.digest, world.descriptor_set, catalog.read(world.descriptor_set))
    ref = agent_pb2.ServiceRef(name=world.service, descriptor_digest=world.digest)
    contract = sets.contract("support-triage", [ref])
    assert contract.description.startswith("Classifies")
    assert list(contract.tags) == ["support", "classification"]
    assert contract.tier == "essential"
    assert set(sets.retryable([ref])) == {
        f"/{world.service}/{method}"
        for method in ("Classify", "Teach", "ListModels", "DeleteModel")
    }


def test_methods_that_change_things_are_not_retryable():
    file = descriptor_pb2.FileDescriptorProto(name="a.proto", package="p", syntax="proto3")
    file.message_type.add(name="M")
    service = file.service.add(name="S")
    for name, level in (("Get", 1), ("Put", 2), ("Add", 0)):
        method = service.method.add(name=name, input_type=".p.M", output_type=".p.M")
        if level:
            method.options.idempotency_level = level
    found = catalog.read(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    retryable = [method.path for method in found["p.S"].methods if method.retryable]
    assert retryable == ["/p.S/Get", "/p.S/Put"]


def test_the_order_of_files_does_not_matter(world):
    shuffled = files(world)
    backwards = list(shuffled.file)[::-1]
    del shuffled.file[:]
    shuffled.file.extend(backwards)
    assert world.service in catalog.read(shuffled.SerializeToString())


def test_a_set_that_lacks_an_import_is_refused(world):
    partial = files(world)
    del partial.file[0]
    with pytest.raises(catalog.InvalidSetError, match="lacks google/.*imports"):
        catalog.read(partial.SerializeToString())


def test_a_set_that_imports_itself_is_refused():
    circle = descriptor_pb2.FileDescriptorSet()
    circle.file.add(name="a.proto", dependency=["b.proto"])
    circle.file.add(name="b.proto", dependency=["a.proto"])
    with pytest.raises(catalog.InvalidSetError, match="imports itself"):
        catalog.read(circle.SerializeToString())


def test_a_set_that_does_not_build_is_refused():
    broken = descriptor_pb2.FileDescriptorSet()
    message = broken.file.add(name="a.proto").message_type.add(name="M")
    message.field.add(name="f", number=1, type=11, type_name=".no.Such", label=1)
    with pytest.raises(catalog.InvalidSetError, match="does not build"):
        catalog.read(broken.SerializeToString())


def test_a_set_that_is_too_large_or_no_set_is_refused():
    with pytest.raises(catalog.InvalidSetError, match="larger"):
        catalog.read(b"\0" * (catalog.MAX_SET_BYTES + 1))
    with pytest.raises(catalog.InvalidSetError, match="FileDescriptorSet"):
        catalog.read(b"\xff\xff")
