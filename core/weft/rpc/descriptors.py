"""Descriptor sets of contracts, as the registry keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weft.v1 import registry_pb2

_AT_ONCE = 7  # of at most 2 MiB each (weft/v1/registry.proto), in an answer of at most 16


async def descriptor_sets(stub: Any, digests: Iterable[str], seconds: float) -> dict[str, bytes]:
    """Serialized google.protobuf.FileDescriptorSets by digest, however many and large they are.

    Args:
        stub: of the RegistryService.
        digests: which; none: nothing is asked.
        seconds: that each answer may take.

    Raises:
        grpc.aio.AioRpcError: NOT_FOUND where the registry does not have one.
    """
    wanted, found = sorted(set(digests)), dict[str, bytes]()
    for begin in range(0, len(wanted), _AT_ONCE):
        request = registry_pb2.GetDescriptorsRequest(digests=wanted[begin : begin + _AT_ONCE])
        found.update((await stub.GetDescriptors(request, timeout=seconds)).descriptors.sets)
    return found
