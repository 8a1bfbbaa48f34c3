"""Descriptor sets are had from the registry, however many and large they are."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import descriptor_pb2

from weft import rpc
from weft.agents.registration import Registration
from weft.registry import catalog
from weft.rpc.descriptors import descriptor_sets
from weft.v1 import agent_pb2


def large(number: int) -> tuple[str, bytes]:
    """A service and its set, with comments such as generated contracts have."""
    file = descriptor_pb2.FileDescriptorProto(name=f"large{number}.proto", package="large")
    file.message_type.add(name=f"Nothing{number}")
    service = file.service.add(name=f"Service{number}")
    kind = f".large.Nothing{number}"
    service.method.add(name="Do", input_type=kind, output_type=kind)
    file.source_code_info.location.add(leading_comments="x" * (catalog.MAX_SET_BYTES - 1_000))
    content = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    return f"large.Service{number}", content


async def test_more_than_a_message_can_hold(mesh, stub, world):
    given = dict(large(number) for number in range(12))
    digests = {name: catalog.digest_of(content) for name, content in given.items()}
    refs = [
        agent_pb2.ServiceRef(name=name, descriptor_digest=digest)
        for name, digest in digests.items()
    ]
    process = Registration(
        mesh.address,
        instances=[world.instance(services=refs)],
        descriptors={digests[name]: content for name, content in given.items()},
        load=dict,
    )
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(20):
        await process.registered.wait()
    found = await descriptor_sets(stub, digests.values(), 10)
    assert found == {digests[name]: content for name, content in given.items()}
    process.leave()
    await running


async def test_none_and_one_that_nobody_has(stub):
    assert await descriptor_sets(stub, [], 5) == {}
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await descriptor_sets(stub, ["0" * 64], 5)
    assert isinstance(rpc.error_from_call(failed.value), rpc.NotFound)
