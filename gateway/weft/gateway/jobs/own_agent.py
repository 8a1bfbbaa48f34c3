"""The gateway's own agent: JobService behind a socket that nobody else can open.

So every door serves it as it serves any agent, with the same guards and the caller's identity.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from weft import rpc
from weft.gateway.jobs.service import JobService
from weft.gateway.transcoding.catalog import Contract
from weft.v1 import jobs_pb2, jobs_pb2_grpc

AGENT = "weft-jobs"
SERVICE = "weft.v1.JobService"


class OwnAgent:
    """Serves JobService to this process.

    Args:
        service: what is served.
    """

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._folder = Path()
        self._server: rpc.Server
        self.target = ""

    async def __aenter__(self) -> Self:
        # Made for this user alone: identities that come this way are believed.
        self._folder = Path(tempfile.mkdtemp(prefix="weft-gateway-"))
        self.target = f"unix:{self._folder}/jobs"
        self._server = rpc.Server(self.target, reflects=False, trace_roots=False)
        self._server.add(jobs_pb2_grpc.add_JobServiceServicer_to_server, self._service)
        await self._server.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def contract() -> Contract:
    """What it serves."""
    files = FileDescriptorSet()
    _add(jobs_pb2.DESCRIPTOR, files, set())
    return Contract(
        agent=AGENT,
        descriptor_set=files.SerializeToString(deterministic=True),
        services=(SERVICE,),
    )


def _add(file: FileDescriptor, files: FileDescriptorSet, seen: set[str]) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for imported in file.dependencies:
        _add(imported, files, seen)
    file.CopyToProto(files.file.add())
