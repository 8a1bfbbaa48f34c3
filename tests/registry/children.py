"""Processes of their own, each of which prints one line.

replica NAME                        serves triage, prints its address
registry DATABASE_URL ADDRESS       prints its address
caller AGENT                        calls xds:///AGENT, prints the replica that answered
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

import grpc

from weft import registry, rpc
from weft.support.v1 import triage_pb2, triage_pb2_grpc


class Triage(triage_pb2_grpc.TriageServiceServicer):
    def __init__(self, name: str) -> None:
        self.name = name

    async def Classify(self, request, context):
        return triage_pb2.ClassifyResponse(model=self.name)

    async def Teach(self, requests, context):
        raise NotImplementedError

    async def ListModels(self, request, context):
        raise NotImplementedError

    async def DeleteModel(self, request, context):
        raise NotImplementedError


async def replica(name: str) -> None:
    server = rpc.Server("127.0.0.1:0")
    server.add(triage_pb2_grpc.add_TriageServiceServicer_to_server, Triage(name))
    async with server:
        print(server.address, flush=True)  # noqa: T201 how the test learns it
        await asyncio.Event().wait()


async def serve_registry(database_url: str, address: str) -> None:
    running = registry.Registry(
        database_url=database_url,
        address=address,
        terms=registry.Terms(ttl=timedelta(seconds=1.5), heartbeat_interval=timedelta(seconds=0.2)),
        cold_start=timedelta(seconds=1),
    )
    async with running:
        print(running.address, flush=True)  # noqa: T201 how the test learns it
        await running.wait()


async def call(agent: str) -> None:
    async with grpc.aio.insecure_channel(f"xds:///{agent}") as channel:
        answer = await triage_pb2_grpc.TriageServiceStub(channel).Classify(
            triage_pb2.ClassifyRequest(text="hello"), timeout=10
        )
        print(answer.model, flush=True)  # noqa: T201 how the test learns it


if __name__ == "__main__":
    roles = {"replica": replica, "registry": serve_registry, "caller": call}
    asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))
