"""An orchestrator as a process: `ROLE LISTEN REGISTRY DATABASE_URL NAME LEASE`.

It says to PostgreSQL who it is, so that what it writes can be told from what others write.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from datetime import timedelta

from weft import rpc
from weft.agents import Mesh
from weft.agents.orchestrator.engine.settings import WorkerSettings
from weft.agents.orchestrator.fleet import OrchestratorSettings, orchestrator
from weft.telemetry import logs
from weft.v1 import orchestrator_pb2_grpc


async def _serve(listen: str, registry: str, database_url: str, name: str, lease: float) -> None:
    mesh = Mesh(registry)
    worker = WorkerSettings(lease=timedelta(seconds=lease), stay=timedelta(0))
    async with (
        rpc.Channel(registry) as registered,
        orchestrator(
            database_url=f"{database_url}&crash.worker={name}.{uuid.uuid4().hex[:6]}",
            registry=registered,
            channel=mesh.channel,
            settings=OrchestratorSettings(worker=worker),
        ) as service,
    ):
        server = rpc.Server(listen)
        server.add(orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, service)
        async with server:
            print("ready", flush=True)  # noqa: T201 for whoever started it
            await asyncio.Event().wait()


if __name__ == "__main__":
    logs.setup("worker")
    asyncio.run(_serve(*sys.argv[1:5], float(sys.argv[5])))  # type: ignore[call-arg]
